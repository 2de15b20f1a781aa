"""Keep a lease alive while its holder is busy with one slow thing: a large file on a tired share, a huge folder."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError

from worker.logging import get_logger

log = get_logger(__name__)

#: Seconds that the end of a lease waits for a renewal under way.
_PATIENCE = 2.0


@contextmanager
def renewed(renew: Callable[[], None], *, lease_seconds: float, at_most: float = math.inf) -> Iterator[None]:
    """Renew a lease from a thread, three times in its length, for as long as the block runs.

    The thread only extends. Whether the lease is still held is found out by whoever writes under it, so an error here
    changes nothing: a lease that was lost makes the next write fail, a database that is away does too.

    Args:
        renew: one renewal in a transaction of its own; an error that is not the database's ends the renewing.
        lease_seconds: length of the lease.
        at_most: seconds after which nothing is renewed any more, so that a holder that hangs for ever, and whose
            supervisor is dead too, does not keep the lease for ever.
    """
    ended = threading.Event()

    def keep() -> None:
        stop_at = time.monotonic() + at_most
        while not ended.wait(lease_seconds / 3) and time.monotonic() < stop_at:
            try:
                renew()
            except SQLAlchemyError as error:
                log.warning("a lease could not be renewed, trying on", reason=type(error).__name__)
            except Exception as lost:
                log.info("a lease is not renewed any more", reason=type(lost).__name__)
                return

    # Daemonic: a process that must end does not wait for a renewal that waits for a database.
    thread = threading.Thread(target=keep, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        # A renewal under way would find the lease given back, and say that it was lost.
        thread.join(_PATIENCE)
