"""Workers that are killed, stopped and frozen in the middle of a chunk."""

import json
import os
import re
import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from db.status import ChunkStatus
from tests.acceptance.conftest import running_system, until
from tests.acceptance.faults.conftest import Undisturbed
from tests.acceptance.faults.processes import FaultSystem, with_faults
from tests.acceptance.faults.reconcile import (
    Held,
    check_counts,
    chunks,
    ended,
    freeze_in_mid_chunk,
    held,
    predictions,
    still_under_way,
    under_way,
)

both_databases = pytest.mark.databases("sqlite", "postgresql")
#: Seconds that a worker may take to leave: half of what Docker and Kubernetes give it by default.
GRACE = 15.0


@pytest.mark.fault(1)
@both_databases
def test_a_pool_child_is_killed_in_mid_chunk(system: FaultSystem, undisturbed: Undisturbed) -> None:
    """Guards leases and the sweep for those that ran out: the dead child's chunk is claimed again, carefully."""
    worker = system.worker()
    system.sweeper()
    job = system.submit(undisturbed.folder)
    under_way(system, job)
    victim = freeze_in_mid_chunk(system, job, among=worker.children())
    os.kill(victim.pid, signal.SIGKILL)
    check_counts(system, job, undisturbed.expected)
    attempts = {chunk.id: chunk.attempt for chunk in chunks(system, job)}
    assert attempts.pop(victim.chunk_id) == 2
    assert set(attempts.values()) == {1}
    assert worker.process.poll() is None


@pytest.mark.fault(2)
@both_databases
def test_a_whole_worker_is_killed(database_url: str, undisturbed: Undisturbed, tmp_path: Path) -> None:
    """Guards `dermq up`'s supervision and the leases: main process and pool die at once, a new worker goes on."""
    settings = {"DERMQ_DATABASE_URL": database_url, **with_faults()}
    with running_system(tmp_path / "home", **settings) as system:
        job = int(system.dermq("submit", undisturbed.folder).stdout)
        under_way(system, job)
        victim = freeze_in_mid_chunk(system, job)
        # Of the whole pool: a worker and its children are a process group of their own.
        os.killpg(os.getpgid(victim.pid), signal.SIGKILL)
        still_under_way(system, job)
        check_counts(system, job, undisturbed.expected)
        assert next(chunk.attempt for chunk in chunks(system, job) if chunk.id == victim.chunk_id) == 2
        system.process.send_signal(signal.SIGTERM)
        output, _ = system.process.communicate(timeout=60)
    assert "process died" in output


@pytest.mark.fault(15)
@both_databases
def test_sigterm_under_load(system: FaultSystem, undisturbed: Undisturbed) -> None:
    """Guards the handing back: out within the grace period, no lease to wait for, nobody suspected of a death."""
    worker = system.worker(FAULT_SECONDS_PER_IMAGE="0.1")
    job = system.submit(undisturbed.folder)
    until(lambda: len(held(system, job)) == 2, "both processes of the worker are in mid-chunk")
    asked = time.monotonic()
    worker.ask_to_stop()
    assert worker.process.wait(GRACE) == 0
    assert time.monotonic() - asked < GRACE
    still_under_way(system, job)
    # Nobody has swept: what is free now was handed back by the worker itself, with the batches that it had written.
    found = chunks(system, job)
    assert ChunkStatus.LEASED not in {chunk.status for chunk in found}
    assert ended(system, job) > sum(chunk.size for chunk in found if chunk.status is ChunkStatus.DONE)

    system.worker("second")
    system.sweeper()
    check_counts(system, job, undisturbed.expected)
    assert {chunk.attempt for chunk in chunks(system, job)} == {1}


@pytest.mark.fault(17)
@both_databases
def test_a_lease_is_stolen_from_a_stopped_worker_that_then_wakes_up(
    system: FaultSystem, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """Guards the fencing by owner: one sleeper wakes while the thief is at its chunk, the other when it is done."""

    def chunk_of(sleeper: Held) -> Any:
        return next(chunk for chunk in chunks(system, job) if chunk.id == sleeper.chunk_id)

    first = system.worker("first")
    system.sweeper()
    folder = undisturbed.copy(tmp_path / "archive", images=80)
    job = system.submit(folder)
    early = freeze_in_mid_chunk(system, job)
    late = freeze_in_mid_chunk(system, job, among=[pid for pid in first.children() if pid != early.pid])
    os.kill(first.process.pid, signal.SIGSTOP)

    system.worker("second", FAULT_SECONDS_PER_IMAGE="0.3")
    until(lambda: chunk_of(early).attempt == 2, "the first sleeper's lease is stolen")
    os.kill(early.pid, signal.SIGCONT)
    until(lambda: first.log().count("chunk released") == 1, "the first sleeper has given up")
    assert chunk_of(early).status is ChunkStatus.LEASED, "the thief was too fast: the test proves nothing"

    until(lambda: chunk_of(late).status is ChunkStatus.DONE, "the thief is done with the second sleeper's chunk")
    until(lambda: chunk_of(early).status is ChunkStatus.DONE, "and with the first one's")
    before = predictions(system, job)
    os.kill(late.pid, signal.SIGCONT)
    until(lambda: first.log().count("chunk released") == 2, "the second sleeper has given up")
    os.kill(first.process.pid, signal.SIGCONT)
    check_counts(system, job, undisturbed.expected, archive=folder)
    # What was written stays as it was, to the time of writing.
    assert predictions(system, job) == before
    assert chunk_of(early).attempt == chunk_of(late).attempt == 2


@pytest.mark.fault(24)
def test_every_process_of_a_worker_is_frozen(system: FaultSystem, undisturbed: Undisturbed, tmp_path: Path) -> None:
    """Guards the diagnosis: the main process of a worker answers, and nothing is scored. It said ok for ever."""
    system.environment["DERMQ_LEASE_SECONDS"] = "2"
    worker = system.worker("worker", FAULT_SECONDS_PER_IMAGE="0.5")
    system.sweeper()
    folder = undisturbed.copy(tmp_path / "archive", images=64)
    job = system.submit(folder)
    until(lambda: any(chunk.owner for chunk in chunks(system, job)), "a chunk is claimed")
    healthy = json.loads(system.dermq("check", "--json").stdout)
    assert {each["component"]: each["text"] for each in healthy["checks"]}["jobs"] == "1 under way"
    children = worker.children()
    for child in children:
        os.kill(child, signal.SIGSTOP)
    try:
        until(lambda: not any(_live(chunk) for chunk in chunks(system, job)), "every lease has ended")
        failed = system.dermq("check", "--json", check=False)
        assert failed.returncode == 1
        found = {each["component"]: each for each in json.loads(failed.stdout)["checks"]}
        assert found["workers"]["ok"], "its main process answers"
        assert not found["jobs"]["ok"]
        text = found["jobs"]["text"]
        assert re.search(r"Job 1: Nothing is scored\. The worker on \S+, process \d+, has chunk \d+", text)
        assert "lease ended" in text
        assert "frozen or dead" in text
        assert "Restart that worker" in text
        assert any(f"process {child}," in text for child in children)
        stalled = json.loads(system.dermq("status", str(job), "--json").stdout)["stalled"]
        assert stalled is not None
        assert "frozen or dead" in stalled
    finally:
        for child in children:
            os.kill(child, signal.SIGCONT)
    check_counts(system, job, undisturbed.expected, archive=folder)
    assert system.dermq("check").returncode == 0


def _live(chunk: Any) -> bool:
    return chunk.lease_expires_at is not None and chunk.lease_expires_at > datetime.now(UTC)
