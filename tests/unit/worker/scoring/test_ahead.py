"""One item is prepared ahead of the one in hand, in order, and nothing is waited for that nobody needs."""

import threading
import time
from collections.abc import Callable

import pytest

from worker.scoring.ahead import one_ahead, still_hanging

Cancelled = Callable[[], bool]


def test_every_item_comes_once_and_in_order() -> None:
    assert list(one_ahead([1, 2, 3], lambda item, _: item * 10)) == [(1, 10), (2, 20), (3, 30)]
    assert list(one_ahead([], lambda item, _: item)) == []


def test_the_next_item_is_worked_on_while_the_caller_has_one_and_never_more() -> None:
    begun: list[int] = []

    def work(item: int, _: Cancelled) -> int:
        begun.append(item)
        return item

    for item, _ in one_ahead([1, 2, 3, 4], work):
        time.sleep(0.05)
        assert begun == list(range(1, min(item + 1, 4) + 1))


def test_an_error_is_raised_where_its_item_is_reached() -> None:
    def work(item: int, _: Cancelled) -> int:
        if item == 2:
            raise ZeroDivisionError
        return item

    pairs = one_ahead([1, 2, 3], work)
    assert next(pairs) == (1, 1)
    with pytest.raises(ZeroDivisionError):
        next(pairs)


def test_a_caller_that_stops_does_not_wait_for_a_hanging_read() -> None:
    hangs, cancelled = threading.Event(), threading.Event()

    def work(item: int, ended: Cancelled) -> int:
        if item == 2:
            hangs.wait(30)
            if ended():
                cancelled.set()
        return item

    pairs = one_ahead([1, 2], work)
    assert next(pairs) == (1, 1)
    started = time.monotonic()
    pairs.close()  # type: ignore[attr-defined] # a generator
    assert time.monotonic() - started < 5
    assert still_hanging(0.1)
    hangs.set()
    assert not still_hanging(5)
    assert cancelled.wait(5), "the work is told that nobody needs it"
