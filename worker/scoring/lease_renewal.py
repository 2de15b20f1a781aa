"""Renew a lease while its holder is busy with something slow: a large file on a slow share, a huge folder."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError

from worker.logging import get_logger

log = get_logger(__name__)

#: Seconds that the end of the block waits for a renewal under way.
_JOIN_TIMEOUT = 2.0


@contextmanager
def renewed(renew: Callable[[], None], *, lease_seconds: float, at_most: float = math.inf) -> Iterator[None]:
    """Renew a lease from a thread, three times in its length, while the block runs.

    The thread only extends the lease. The next write under the lease checks that it is still held, so an error here
    changes nothing.

    Args:
        renew: one renewal in its own transaction. An error other than the database's ends the renewals.
        lease_seconds: length of the lease.
        at_most: seconds after which renewals end, so that a holder that hangs for ever, and whose supervisor is dead
            too, does not keep the lease for ever.
    """
    ended = threading.Event()

    def keep() -> None:
        stop_at = time.monotonic() + at_most
        while not ended.wait(lease_seconds / 3) and time.monotonic() < stop_at:
            try:
                renew()
            except SQLAlchemyError as error:
                log.warning("cannot renew a lease, trying again", reason=type(error).__name__)
            except Exception as lost:
                log.info("lease renewals ended", reason=type(lost).__name__)
                return

    # A daemon thread: a process that must end does not wait for a renewal that waits for the database.
    thread = threading.Thread(target=keep, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        # Otherwise a renewal under way would find the lease released and report it as lost.
        thread.join(_JOIN_TIMEOUT)
