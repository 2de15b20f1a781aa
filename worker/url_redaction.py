"""Addresses of the database and the broker: what of them may be shown, and passwords that cannot stand in one."""

import re
from collections.abc import Iterator
from urllib.parse import parse_qsl, unquote, urlsplit

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

#: What stands in a secret's place.
MASK = "***"
#: The same among the parameters of an address, where a star would be written as a number.
_MASK_AMONG_PARAMETERS = "hidden"
#: Parameters of an address that are secrets.
_SECRET_PARAMETERS = ("password", "sslpassword")
_SECRET_PARAMETER = re.compile(rf"[?&](?:{'|'.join(_SECRET_PARAMETERS)})=([^&#]*)")
#: How an address of a broker may begin; the last is for tests, in one process.
_BROKERS = ("redis", "rediss", "redis+socket", "sentinel", "memory")
#: Shorter ones are not looked for in messages: they would be found in every second word.
_SHORTEST = 4


def shown_database(url: str) -> str:
    """A database's address without its passwords.

    Args:
        url: that `db.session.open_database` takes.
    """
    address = make_url(url)
    masked = {name: _MASK_AMONG_PARAMETERS for name in address.query if name in _SECRET_PARAMETERS}
    return address.update_query_dict(masked).render_as_string(hide_password=True)


def without_password(text: str, url: str) -> str:
    """A message of a library without the passwords of the address that it speaks of, as written or decoded."""
    for secret in sorted(_secrets(url), key=len, reverse=True):
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, MASK)
    return text


def _secrets(url: str) -> Iterator[str]:
    # Behind the first colon up to the last @, whatever stands between.
    behind = url.partition("://")[2].rpartition("@")[0].partition(":")[2]
    for secret in (behind, *_SECRET_PARAMETER.findall(url)):
        yield from (secret, unquote(secret))


def broken_database_password(url: str) -> str | None:
    """Why a password cannot be told from the rest of a database's address, or None. Says nothing of what it is."""
    try:
        host = make_url(url).host
    except (ArgumentError, ValueError):
        # Not an address at all, which `db.session.open_database` says.
        return None
    return "its password holds an @, write that as %40" if host is not None and "@" in host else None


def broken_broker_password(url: str) -> str | None:
    """The same of a broker's address, and why it is none."""
    if "://" not in url:
        return "it has no ://, expected redis://:password@host:port/0"
    try:
        parts = urlsplit(url)
    except ValueError:
        return "it is no address; write letters of a password that are not a to z or digits as % and two digits"
    if parts.scheme not in _BROKERS:
        return "it does not begin with redis:// or rediss://, expected redis://:password@host:port/0"
    if any(name in _SECRET_PARAMETERS for name, _ in parse_qsl(parts.query)):
        return "its password stands behind the ?, expected redis://:password@host:port/0"
    rest = url.partition("://")[2][len(parts.netloc) :]
    if parts.scheme in ("redis", "rediss") and "@" not in parts.netloc and "@" in rest:
        return "its password holds a /, a ? or a #, write them as %2F, %3F and %23"
    return None
