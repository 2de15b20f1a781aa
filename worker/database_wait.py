"""Wait out a database that is away: say so once a minute, go on by itself when it is back."""

import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import InterfaceError, OperationalError

from worker.log_throttle import Complaint
from worker.logging import get_logger

log = get_logger(__name__)

Result = TypeVar("Result")
#: Seconds before the first further attempt; doubled up to the second number.
_WAIT, _WAIT_AT_MOST = 1.0, 10.0
#: How often a wait looks whether the process was asked to stop.
_LOOK_EVERY = 0.2
#: What SQLAlchemy raises when the server is away, the file is locked or the disk is full.
DATABASE_AWAY = (OperationalError, InterfaceError)


def wait_out(work: Callable[[], Result], complaint: Complaint, stopping: Callable[[], bool] = lambda: False) -> Result:
    """Run something until the database lets it.

    Args:
        work: safe to run again.
        complaint: shared by everything that misses this database.
        stopping: asked while waiting; when true the last error is raised.

    Returns:
        What ``work`` returned.

    Raises:
        OperationalError: the database is still away, and this process was asked to stop.
    """
    wait, missed = _WAIT, False
    while True:
        try:
            result = work()
        except DATABASE_AWAY as error:
            if stopping():
                raise
            missed = True
            if complaint.due():
                log.warning("the database does not serve, waiting for it", reason=str(error.orig).strip())
            _sleep(wait, stopping)
            wait = min(wait * 2, _WAIT_AT_MOST)
        else:
            if missed:
                log.info("the database serves again")
                complaint.withdraw()
            return result


def _sleep(seconds: float, stopping: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not stopping():
        time.sleep(_LOOK_EVERY)
