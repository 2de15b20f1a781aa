"""Wait for a database that is unavailable: log it once a minute, and continue by itself when it is back."""

import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import InterfaceError, OperationalError

from worker.log_throttle import LogThrottle
from worker.logging import get_logger

log = get_logger(__name__)

Result = TypeVar("Result")
#: Seconds before the second attempt, doubled for each further one, and their limit.
_WAIT, _MAX_WAIT = 1.0, 10.0
#: Seconds between two questions whether the process should stop.
_POLL_INTERVAL = 0.2
#: What SQLAlchemy raises when the server is away, the file is locked or the disk is full.
DATABASE_UNAVAILABLE = (OperationalError, InterfaceError)


def retry_until_available(
    work: Callable[[], Result], throttle: LogThrottle, stopping: Callable[[], bool] = lambda: False
) -> Result:
    """Call a function until the database is available.

    Args:
        work: safe to run again.
        throttle: shared by all processes that use this database.
        stopping: whether this process should stop; asked while it waits.

    Returns:
        The result of ``work``.

    Raises:
        OperationalError: the database is unavailable, and the process should stop.
    """
    wait, failed = _WAIT, False
    while True:
        try:
            result = work()
        except DATABASE_UNAVAILABLE as error:
            if stopping():
                raise
            failed = True
            if throttle.allow():
                log.warning("database unavailable, waiting for it", reason=str(error.orig).strip())
            _sleep(wait, stopping)
            wait = min(wait * 2, _MAX_WAIT)
        else:
            if failed:
                log.info("database available again")
                throttle.reset()
            return result


def _sleep(seconds: float, stopping: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not stopping():
        time.sleep(_POLL_INTERVAL)
