"""Processes of this machine's worker that hold a chunk and show no life: frozen, or in a read that cannot be killed."""

import socket

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from db.progress import held_chunks
from db.session import read


def stuck_processes(database: Engine, lease_seconds: float) -> int:
    """Number of processes on this host whose lease ended long ago, and whose chunk nobody has taken over.

    Args:
        database: from `db.session.open_database`.
        lease_seconds: length of a lease. Long ago is twice that and ten seconds.
    """
    long_ago = -(2 * lease_seconds + 10)
    try:
        held = read(database, held_chunks, attempts=1)
    except SQLAlchemyError:
        # Then nobody could work, and another worker would not help.
        return 0
    here = socket.gethostname()
    owners = (chunk.owner.split(":")[:2] for chunk in held if chunk.lease_seconds_left < long_ago)
    return len({number for host, number in owners if host == here})
