"""Workers whose clocks are wrong."""

import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.acceptance.conftest import until
from tests.acceptance.faults.conftest import Undisturbed
from tests.acceptance.faults.processes import FaultSystem, Part
from tests.acceptance.faults.reconcile import check_counts, chunks, predictions

#: Leaves alone what is not the clock of the day: waiting times, and the times that a file server gave its files.
CLOCK_ONLY = {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}
HOUR = timedelta(hours=1)


@pytest.fixture
def faketime() -> str:
    """The program that changes the clock of another."""
    found = shutil.which("faketime")
    if found is None:
        assert not os.environ.get("DERMQ_REQUIRE_FAKETIME"), "DERMQ_REQUIRE_FAKETIME is set and faketime is missing"
        pytest.skip("no program faketime: install the faketime package")
    return found


@pytest.mark.fault(21)
@pytest.mark.databases("postgresql", no_other=True)
def test_the_clocks_of_two_workers_are_off_by_an_hour(
    system: FaultSystem, undisturbed: Undisturbed, faketime: str, tmp_path: Path
) -> None:
    """Guards that leases are measured by the database's clock alone: one worker lives in the future, one in the past.

    PostgreSQL only: SQLite is in the worker's own process and has its clock, which on one machine is everybody's.
    """
    # Hints enough that each worker is told of chunks which others have in hand, and time enough to take them away.
    system.environment["FAULT_HINT_TIMES"] = "5"
    slow = {"DERMQ_CONCURRENCY": "1", "FAULT_SECONDS_PER_IMAGE": "0.2"}
    ahead = system.worker("ahead", wrapped_in=(faketime, "-f", "+1h"), **slow, **CLOCK_ONLY)
    behind = system.worker("behind", wrapped_in=(faketime, "-f", "-1h"), **slow, **CLOCK_ONLY)
    right = system.worker("right", **slow)
    system.sweeper()
    until(lambda: all(" ready." in worker.log() for worker in (ahead, behind, right)), "each worker is there")
    begun = datetime.now(UTC)
    folder = undisturbed.copy(tmp_path / "archive", images=128)
    job = system.submit(folder)
    check_counts(system, job, undisturbed.expected, archive=folder)

    now = datetime.now(UTC)
    for worker, error in ((ahead, HOUR), (behind, -HOUR), (right, timedelta())):
        claimed = _times(worker, "chunk claimed")
        assert claimed, f"the worker {worker.name} scored nothing: the test proves nothing"
        assert all(begun + error <= time <= now + error for time in claimed)
        assert "chunk released" not in worker.log()
    assert {chunk.attempt for chunk in chunks(system, job)} == {1}
    assert all(begun <= row.scored_at <= now for row in predictions(system, job))


def _times(worker: Part, event: str) -> list[datetime]:
    """When a worker says that something happened."""
    lines = (json.loads(line) for line in worker.log().splitlines() if line.startswith("{"))
    return [datetime.fromisoformat(line["timestamp"]) for line in lines if line["event"] == event]
