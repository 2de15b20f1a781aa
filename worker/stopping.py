"""How a worker's children learn that it was asked to stop: one byte of memory that they share with it.

Celery tells only its main process. Its warm shutdown waits for the task in hand however long that takes, its soft
shutdown sleeps for a fixed time however short that is. With this byte a child hands its chunk back between two batches,
so that a worker is gone in a fraction of a second and nothing is scored twice.
"""

import mmap


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
