"""Stopping a worker: its child processes see a shared flag between two batches, and a time limit ends whatever hangs.

Celery informs only its main process. Its warm shutdown waits for the current task, however long that takes; its soft
shutdown sleeps for a fixed time, however short the task is. With the flag, a child releases its chunk between two
batches: the worker stops in a fraction of a second, and no image is scored twice.
"""

import os
import signal
import threading
from multiprocessing import Value

from billiard.process import active_children

from worker.logging import get_logger

log = get_logger(__name__)

#: Seconds after which a worker that was asked to stop is ended. Compose and `dermq up` wait longer.
STOP_SECONDS = 30.0


class StopFlag:
    """Set in the main process, seen in every child that is forked afterwards."""

    def __init__(self) -> None:
        # Without a lock: a child that is killed while it holds one would block the others for ever.
        self._stopping = Value("b", 0, lock=False)

    def set(self, *_: object, **__: object) -> None:
        """Ask the children to release their chunks. Accepts and ignores the arguments of a signal handler."""
        self._stopping.value = 1

    def __call__(self) -> bool:
        """Whether the worker was asked to stop."""
        return bool(self._stopping.value)


def leave_in_time(*_: object, **__: object) -> None:
    """End this worker and its children after `STOP_SECONDS`, even if Celery's own stop hangs on an unreachable broker.

    Nothing is lost: another worker claims the chunks once their leases have expired.
    """

    def leave() -> None:
        log.error("did not stop in time, leaving chunks to their leases", seconds=STOP_SECONDS)
        try:
            for child in active_children():
                os.kill(child.pid, signal.SIGKILL)
        finally:
            os._exit(1)

    timer = threading.Timer(STOP_SECONDS, leave)
    timer.daemon = True
    timer.start()
