"""Accounts of people who use Flower: names, roles, and passwords as scrypt hashes, in one file."""

import base64
import fcntl
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from worker.atomic_files import replace_file
from worker.errors import SettingsError
from worker.regular_files import read_regular

#: Name of the file in the home folder. Only the account that runs dermq may read it.
USERS_FILE = "flower-users.json"
_PRIVATE = 0o600
#: A name, or the e-mail address of somebody who signs in through OAuth.
_NAME = re.compile(r"[\w.@+-]{1,100}", re.ASCII)
#: Account that DERMQ_FLOWER_PASSWORD belongs to.
BUILT_IN = "dermq"
#: Shortest password, in characters.
SHORTEST_PASSWORD = 12
#: Cost of scrypt: 16 MiB and some 50 ms (RFC 7914; OWASP's password storage cheat sheet allows it).
_N, _R, _P = 2**14, 8, 5
_SALT_BYTES = 16


class Role(StrEnum):
    """What somebody may do."""

    #: See jobs and workers.
    VIEWER = "viewer"
    #: Control jobs as well, and download rows with file names.
    OPERATOR = "operator"


@dataclass(frozen=True, kw_only=True)
class Account:
    """Somebody who is signed in."""

    name: str
    role: Role

    @property
    def is_operator(self) -> bool:
        """Whether this account may control jobs."""
        return self.role is Role.OPERATOR


@dataclass(frozen=True, kw_only=True)
class _Stored:
    role: Role
    #: None for somebody who signs in through OAuth only.
    password: str | None


class Users:
    """The accounts in a file. Changes of the file count at once.

    Args:
        file: may be missing, for no accounts.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._read_at: tuple[int, int] | None = None
        self._stored: dict[str, _Stored] = {}

    def accounts(self) -> list[Account]:
        """All accounts, by name.

        Raises:
            SettingsError: the file cannot be read, is damaged, or may be read by others.
        """
        return [Account(name=name, role=stored.role) for name, stored in sorted(self._load().items())]

    def find(self, name: str) -> Account | None:
        """The account with this name."""
        stored = self._load().get(name)
        return None if stored is None else Account(name=name, role=stored.role)

    def check(self, name: str, password: str) -> Account | None:
        """The account with this name and password, or None. It takes as long for a name that there is not."""
        stored = self._load().get(name)
        known = stored is not None and stored.password is not None
        right = verify_password(password, str(stored.password) if stored is not None and known else _NOBODY)
        return Account(name=name, role=stored.role) if stored is not None and known and right else None

    def add(self, name: str, role: Role, password: str | None) -> None:
        """Add an account, or replace it.

        Args:
            name: of letters, digits and ``. _ @ + -``.
            role: of the account.
            password: None for somebody who signs in through OAuth.

        Raises:
            SettingsError: name or password cannot be used, or the file cannot be written.
        """
        if not _NAME.fullmatch(name):
            raise SettingsError(f"{name!r} cannot be a name. Use letters, digits and . _ @ + -, at most 100.")
        if name == BUILT_IN:
            raise SettingsError(f"The account {name} has the password of DERMQ_FLOWER_PASSWORD. Choose another name.")
        if password is not None and len(password) < SHORTEST_PASSWORD:
            raise SettingsError(f"The password is too short. Use {SHORTEST_PASSWORD} characters or more.")
        try:
            hashed = None if password is None else hash_password(password)
        except UnicodeEncodeError:
            raise SettingsError("The password holds bytes that are no text. Write it as UTF-8.") from None
        with self._locked():
            self._write({**self._load(), name: _Stored(role=role, password=hashed)})

    def remove(self, name: str) -> bool:
        """Remove an account. Returns whether there was one."""
        with self._locked():
            stored = dict(self._load())
            if stored.pop(name, None) is None:
                return False
            self._write(stored)
            return True

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other commands from changing the file meanwhile."""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self.file.with_suffix(".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise SettingsError(f"{self.file} cannot be written: {error.strerror}.") from None

    def _load(self) -> dict[str, _Stored]:
        try:
            status = self.file.stat()
        except FileNotFoundError:
            self._read_at, self._stored = None, {}
            return self._stored
        except OSError as error:
            raise SettingsError(f"{self.file} cannot be read: {error.strerror}.") from None
        if status.st_mode & 0o077:
            raise SettingsError(f"{self.file} can be read by other accounts. Run `chmod 600 {self.file}`.")
        seen = (status.st_mtime_ns, status.st_ino)
        if seen != self._read_at:
            try:
                content = json.loads(read_regular(self.file))
                self._stored = {
                    str(name): _Stored(role=Role(entry["role"]), password=entry.get("password"))
                    for name, entry in content.items()
                }
            except OSError as error:
                raise SettingsError(f"{self.file} cannot be read: {error.strerror}.") from None
            except (ValueError, KeyError, TypeError, AttributeError):
                raise SettingsError(f"{self.file} is damaged. Delete it and add the accounts again.") from None
            self._read_at = seen
        return self._stored

    def _write(self, stored: dict[str, _Stored]) -> None:
        content = {name: {"role": each.role, "password": each.password} for name, each in sorted(stored.items())}
        try:
            with replace_file(self.file) as unfinished:
                unfinished.touch(mode=_PRIVATE)
                unfinished.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise SettingsError(f"{self.file} cannot be written: {error.strerror}.") from None
        self._read_at = None


def hash_password(password: str) -> str:
    """``scrypt:n:r:p:salt:hash``, the last two in base64."""
    salt = secrets.token_bytes(_SALT_BYTES)
    digest = _scrypt(password, salt, _N, _R, _P)
    return ":".join(
        ("scrypt", str(_N), str(_R), str(_P), *(base64.b64encode(each).decode() for each in (salt, digest)))
    )


def verify_password(password: str, hashed: str) -> bool:
    """Whether a password has this hash. False for what is no hash."""
    try:
        kind, n, r, p, salt, digest = hashed.split(":")
        if kind != "scrypt":
            return False
        made = _scrypt(password, base64.b64decode(salt), int(n), int(r), int(p))
        return hmac.compare_digest(made, base64.b64decode(digest))
    except ValueError:
        return False


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=2**26)


#: Hash of a password that nobody has.
_NOBODY = hash_password(secrets.token_hex())
