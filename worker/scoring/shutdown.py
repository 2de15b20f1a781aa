"""How a worker stops: its children learn by one byte of memory that they share with it, and nothing keeps it for ever.

Celery tells only its main process. Its warm shutdown waits for the task in hand however long that takes, its soft
shutdown sleeps for a fixed time however short that is. With this byte a child hands its chunk back between two batches,
so that a worker is gone in a fraction of a second and nothing is scored twice.
"""

import mmap
import os
import signal
import threading

from billiard.process import active_children

from worker.logging import get_logger

log = get_logger(__name__)

#: Seconds that a worker gets between being asked to stop and being gone, whatever hangs. Compose and `dermq up` wait
#: longer.
STOP_SECONDS = 30.0


class StopFlag:
    """Set in the main process, seen in every child that was forked after it was made."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 1)

    def set(self, *_: object, **__: object) -> None:
        """Ask the children to hand back what they have; takes and ignores whatever a signal hands over."""
        self._shared[0] = 1

    def __call__(self) -> bool:
        """Whether the worker was asked to stop."""
        return self._shared[0] == 1


def leave_in_time(*_: object, **__: object) -> None:
    """End this worker with its children in `STOP_SECONDS`, even if Celery's own stop hangs on a broker that is away.

    Nothing is lost by it: what a child had in hand is claimed by another worker once its lease has run out.
    """

    def leave() -> None:
        log.error("did not stop in time, leaving work in hand to its leases", seconds=STOP_SECONDS)
        try:
            for child in active_children():
                os.kill(child.pid, signal.SIGKILL)
        finally:
            os._exit(1)

    timer = threading.Timer(STOP_SECONDS, leave)
    timer.daemon = True
    timer.start()
