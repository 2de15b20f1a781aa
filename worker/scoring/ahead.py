"""Preparing the next batch while the current one is inferred and written."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Generic, TypeVar

#: Name of the threads.
_THREAD = "dermq-ahead"

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Task(Generic[Result]):
    """A function that runs in a thread of its own."""

    def __init__(self, work: Callable[[], Result]) -> None:
        self._work = work
        self._done = threading.Event()
        self._result: Result | None = None
        self._error: BaseException | None = None
        # A daemon: a read that hangs on a dead share must not keep the process from ending.
        threading.Thread(target=self._run, daemon=True, name=_THREAD).start()

    def _run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:
            self._error = error
        finally:
            self._done.set()

    def result(self) -> Result:
        """Wait for the result. A signal handler of the waiting thread may raise meanwhile."""
        self._done.wait()
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value] # set unless there was an error


def one_ahead(
    items: Sequence[Item], work: Callable[[Item, Callable[[], bool]], Result]
) -> Iterator[tuple[Item, Result]]:
    """Apply a function to items in order, one item ahead of the caller, in another thread.

    Args:
        items: what to apply it to.
        work: takes an item, and a function that tells whether its result is needed no more. Never runs twice at a time.

    Yields:
        Each item with its result.

    Raises:
        BaseException: what the function raised, when its item is reached.
    """
    ended = threading.Event()
    upcoming = iter(items)

    def start_next() -> tuple[Item, _Task[Result]] | None:
        for item in upcoming:
            return item, _Task(partial(work, item, ended.is_set))
        return None

    try:
        started = start_next()
        while started is not None:
            item, task = started
            result = task.result()
            started = start_next()
            yield item, result
    finally:
        # The caller may have stopped half way. The thread ends after its current image; nobody waits for it.
        ended.set()


def still_hanging(patience: float) -> bool:
    """Whether a thread still works for a caller that has stopped half way. It keeps memory, and nothing can end it.

    Args:
        patience: seconds to wait for it.
    """
    end = time.monotonic() + patience
    for thread in threading.enumerate():
        if thread.name == _THREAD:
            thread.join(max(0.0, end - time.monotonic()))
            if thread.is_alive():
                return True
    return False
