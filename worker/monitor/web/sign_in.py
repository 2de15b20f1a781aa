"""Signing in to Flower: who asks, from a password in the request or from OAuth, and how often somebody may fail."""

import hashlib
import hmac
import secrets
import time
from base64 import b64decode
from binascii import Error as Base64Error
from collections import OrderedDict
from dataclasses import dataclass, field

from worker.logging import get_logger
from worker.monitor.web.accounts import BUILT_IN, Account, Role, Users
from worker.terminal import printable

log = get_logger(__name__)

#: Failures within `_WINDOW` seconds after which a name, or an address, must wait.
_FAILURES_OF_NAME, _FAILURES_OF_ADDRESS = 5, 30
_WINDOW = 300.0
#: Passwords that were checked, and attempts, that are remembered.
_REMEMBERED = 1_000


@dataclass(frozen=True, kw_only=True)
class Refused(Exception):  # noqa: N818 - an answer rather than a fault
    """The request is refused.

    Args:
        wait: seconds until the next attempt, after too many failures. None when only the password is missing or wrong.
    """

    wait: int | None = None


@dataclass(kw_only=True)
class SignIn:
    """Checks passwords, and makes whoever fails too often wait.

    Args:
        users: the accounts of the file.
        password: of the account ``dermq``. Empty for none.
        read_only: whether everybody is a viewer.
    """

    users: Users
    password: str
    read_only: bool = False
    #: A key of this process: by it, checked passwords are remembered without being kept.
    _key: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    _checked: "OrderedDict[bytes, Account]" = field(default_factory=OrderedDict)
    _failures: "OrderedDict[str, list[float]]" = field(default_factory=OrderedDict)

    def by_password(self, authorization: str, address: str) -> Account:
        """The account of a request with a basic authorization header.

        Args:
            authorization: the header. Empty when there is none.
            address: of the client.

        Raises:
            Refused: there is no such account, or there were too many failures.
        """
        name, password = _credentials(authorization)
        if name is None:
            raise Refused
        if (known := self._remembered(name, password)) is not None:
            # Whoever is at work stays at work, whatever others at the same address do.
            return self._limited(known)
        attempts = (f"{address} {name}", _FAILURES_OF_NAME), (address, _FAILURES_OF_ADDRESS)
        for who, most in attempts:
            if wait := self._wait(who, most):
                raise Refused(wait=wait)
        account = self._check(name, password)
        if account is None:
            for who, _ in attempts:
                self._note_failure(who)
            log.warning("sign-in failed", user=printable(name)[:100], address=address)
            raise Refused
        self._failures.pop(attempts[0][0], None)
        return self._limited(account)

    def by_email(self, email: str) -> Account:
        """The account of somebody whom OAuth has signed in: a viewer, unless the file says more."""
        return self._limited(self.users.find(email) or Account(name=email, role=Role.VIEWER))

    def _limited(self, account: Account) -> Account:
        return Account(name=account.name, role=Role.VIEWER) if self.read_only else account

    def _check(self, name: str, password: str) -> Account | None:
        if name == BUILT_IN and self.password and hmac.compare_digest(password.encode(), self.password.encode()):
            account: Account | None = Account(name=BUILT_IN, role=Role.OPERATOR)
        else:
            account = self.users.check(name, password)
        if account is not None:
            self._checked[self._seal(name, password)] = account
            _forget(self._checked)
        return account

    def _remembered(self, name: str, password: str) -> Account | None:
        """The account of a password that was checked before. Each page asks every two seconds, and scrypt is slow."""
        return self._checked.get(self._seal(name, password))

    def _seal(self, name: str, password: str) -> bytes:
        """Another one after each change of the file, so that nobody who was removed is remembered."""
        stamp = str(self.users.file.stat().st_mtime_ns) if self.users.file.exists() else ""
        return hmac.new(self._key, f"{stamp}\0{name}\0{password}".encode(), hashlib.sha256).digest()

    def _note_failure(self, who: str) -> None:
        now = time.monotonic()
        self._failures[who] = [*(at for at in self._failures.get(who, ()) if now - at < _WINDOW), now]
        self._failures.move_to_end(who)
        _forget(self._failures)

    def _wait(self, who: str, most: int) -> int | None:
        """Seconds until the next attempt is heard."""
        now = time.monotonic()
        recent = [at for at in self._failures.get(who, ()) if now - at < _WINDOW]
        return round(_WINDOW - (now - recent[-most])) + 1 if len(recent) >= most else None


def _forget(remembered: "OrderedDict[bytes, Account] | OrderedDict[str, list[float]]") -> None:
    """Forget the oldest."""
    while len(remembered) > _REMEMBERED:
        remembered.popitem(last=False)


def _credentials(authorization: str) -> tuple[str | None, str]:
    """Name and password of a basic authorization header. No name for anything else."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None, ""
    try:
        name, mark, password = b64decode(encoded.encode(), validate=True).decode().partition(":")
    except (Base64Error, ValueError):
        return None, ""
    return (name, password) if mark else (None, "")
