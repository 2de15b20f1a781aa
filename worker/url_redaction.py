"""URLs of the database and the broker: showing them without passwords, and passwords that break a URL."""

import re
from collections.abc import Iterator
from urllib.parse import parse_qsl, unquote, urlsplit

from kombu.utils.url import maybe_sanitize_url
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

#: Stands in place of a secret.
MASK = "***"
#: The same among the parameters of a URL, where stars would be percent-encoded.
_MASK_AMONG_PARAMETERS = "hidden"
#: Parameters of a URL that are secrets.
_SECRET_PARAMETERS = ("password", "sslpassword")
_SECRET_PARAMETER = re.compile(rf"[?&](?:{'|'.join(_SECRET_PARAMETERS)})=([^&#]*)")
#: Schemes of a broker's URL. The last one is for tests within one process.
_BROKERS = ("redis", "rediss", "redis+socket", "sentinel", "memory")
#: Shorter secrets are not replaced in messages: they would match parts of ordinary words.
_MIN_LENGTH = 4


def shown_database(url: str) -> str:
    """The URL of a database without its passwords.

    Args:
        url: as `db.session.open_database` takes it.
    """
    address = make_url(url)
    masked = {name: _MASK_AMONG_PARAMETERS for name in address.query if name in _SECRET_PARAMETERS}
    return address.update_query_dict(masked).render_as_string(hide_password=True)


def shown_broker(url: str) -> str:
    """The URL of a broker without its password."""
    try:
        return str(maybe_sanitize_url(url, mask=MASK))
    except ValueError:
        # A wrong URL, in which the password is not known from the rest.
        return f"{url.partition('://')[0]}://{MASK}"


def without_password(text: str, url: str) -> str:
    """Remove the passwords of a URL, as written or decoded, from a library's message."""
    for secret in sorted(_secrets(url), key=len, reverse=True):
        if len(secret) >= _MIN_LENGTH:
            text = text.replace(secret, MASK)
    return text


def _secrets(url: str) -> Iterator[str]:
    # From the first colon to the last @: a password may hold either.
    behind = url.partition("://")[2].rpartition("@")[0].partition(":")[2]
    for secret in (behind, *_SECRET_PARAMETER.findall(url)):
        yield from (secret, unquote(secret))


def broken_database_password(url: str) -> str | None:
    """Why the password cannot be told from the rest of a database URL, or None. The text does not show the password."""
    try:
        host = make_url(url).host
    except (ArgumentError, ValueError):
        # Not a URL at all: `db.session.open_database` reports that.
        return None
    return "its password holds an @. Write %40 instead" if host is not None and "@" in host else None


def broken_broker_password(url: str) -> str | None:
    """The same for a broker's URL, and why it is no URL of a broker."""
    if "://" not in url:
        return "it has no ://. Write redis://:password@host:port/0"
    try:
        parts = urlsplit(url)
        # Reading the port checks it.
        _ = parts.port
    except ValueError:
        return (
            "it has no readable host and port. Write redis://:password@host:port/0, and in the password % and two hex "
            "digits for any character other than letters and digits"
        )
    if parts.scheme not in _BROKERS:
        return "it does not begin with redis:// or rediss://. Write redis://:password@host:port/0"
    if any(name in _SECRET_PARAMETERS for name, _ in parse_qsl(parts.query)):
        return "its password is behind the ?. Write redis://:password@host:port/0"
    rest = url.partition("://")[2][len(parts.netloc) :]
    if parts.scheme in ("redis", "rediss") and "@" not in parts.netloc and "@" in rest:
        return "its password holds a /, a ? or a #. Write %2F, %3F and %23 instead"
    return None
