"""Hints that come more than once: repeated by whoever sends them, and taken for lost while a worker is at the chunk."""

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.acceptance.conftest import until
from tests.acceptance.faults.conftest import Undisturbed
from tests.acceptance.faults.processes import FaultSystem, Part
from tests.acceptance.faults.reconcile import check_counts, chunks

TIMES = 10


def _received(*workers: Part) -> Counter[str]:
    """How often each message came, by the number that its sender gave it."""
    return Counter(name for worker in workers for name in re.findall(r"score_chunk\[([\w-]+)\] received", worker.log()))


@pytest.mark.fault(13)
@pytest.mark.databases("sqlite", "postgresql")
def test_each_hint_is_delivered_ten_times(system: FaultSystem, undisturbed: Undisturbed) -> None:
    """Guards the claim: of several processes that are told of a chunk at once, one gets it, and nobody afterwards."""
    system.environment["FAULT_HINT_TIMES"] = str(TIMES)
    workers = [system.worker("first"), system.worker("second")]
    system.sweeper()
    job = system.submit(undisturbed.folder)
    found = chunks(system, job)
    until(lambda: len(_received(*workers)) >= TIMES * len(found), "every repetition has come")
    until(lambda: system.broker.waiting() == 0, "no message is left")
    check_counts(system, job, undisturbed.expected)
    assert {chunk.attempt for chunk in chunks(system, job)} == {1}
    assert sum(worker.log().count("chunk claimed") for worker in workers) == len(found)


@pytest.mark.fault(14)
def test_a_chunk_takes_longer_than_the_visibility_timeout(
    system: FaultSystem, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """Guards the claim against Redis' idea of a lost message: it is delivered again while its chunk is being scored.

    This tests the broker's redelivery. Fault 13 tests the claim that refuses it, on both databases.
    """
    slow = {"FAULT_VISIBILITY_SECONDS": "2", "FAULT_SECONDS_PER_IMAGE": "0.25"}
    workers = [system.worker("first", **slow), system.worker("second", **slow)]
    folder = undisturbed.copy(tmp_path / "archive", images=64)
    job = system.submit(folder)
    until(lambda: max(_received(*workers).values(), default=0) > 1, "a message comes again")
    assert any(chunk.owner for chunk in chunks(system, job)), "its chunk was done before: the test proves nothing"
    check_counts(system, job, undisturbed.expected, archive=folder)
    assert {chunk.attempt for chunk in chunks(system, job)} == {1}
