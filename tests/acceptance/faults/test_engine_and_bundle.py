"""An engine that takes its time and crashes, and a bundle that is not what its hashes say."""

import shutil
from pathlib import Path

import pytest

from db.status import ChunkStatus
from tests.acceptance.conftest import until
from tests.acceptance.faults.conftest import Undisturbed
from tests.acceptance.faults.processes import FaultSystem, running_system
from tests.acceptance.faults.reconcile import check_counts, chunks, ended, still_under_way, under_way
from worker.settings import SHIPPED_BUNDLE

BUNDLE = Path(__file__).parents[3] / "models" / SHIPPED_BUNDLE


@pytest.mark.fault(16)
def test_the_engine_loads_for_half_a_minute_and_then_crashes(
    system: FaultSystem, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """Guards the order of loading and claiming: no lease runs meanwhile, and a crash then is nobody's death.

    On one database: it is not asked while an engine loads.
    """
    crashed = tmp_path / "crashed"
    # One process, or the other one would score everything meanwhile.
    worker = system.worker(
        DERMQ_CONCURRENCY="1",
        FAULT_ENGINE_SECONDS="30",
        FAULT_ENGINE_CRASHED=str(crashed),
        FAULT_SECONDS_PER_IMAGE="0",
    )
    system.sweeper()
    job = system.submit(undisturbed.folder)
    until(crashed.exists, "the engine has loaded for half a minute")
    found = chunks(system, job)
    assert {(chunk.status, chunk.attempt) for chunk in found} == {(ChunkStatus.WAITING, 0)}
    assert system.broker.waiting() <= len(found), "hints have piled up"
    check_counts(system, job, undisturbed.expected)
    assert {chunk.attempt for chunk in chunks(system, job)} == {1}
    assert worker.process.poll() is None


@pytest.mark.fault(19)
def test_a_file_of_the_bundle_is_swapped_in_mid_job(
    database_url: str, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """Guards the bundle's hashes: who has loaded it goes on with what was checked, who loads it now refuses.

    On one database: a worker that refuses asks it for nothing but the job.
    """
    bundle = tmp_path / "bundle"
    shutil.copytree(BUNDLE, bundle)
    weights = bundle / "model.bin"
    genuine = weights.read_bytes()
    with running_system(tmp_path / "home", database_url, DERMQ_BUNDLE=str(bundle)) as system:
        first = system.worker("first")
        system.sweeper()
        job = system.submit(undisturbed.folder)
        under_way(system, job)
        # In place, as `cp` does it, under the eyes of a worker that has it open.
        weights.write_bytes(bytes(len(genuine)))
        swapped_at = still_under_way(system, job)
        until(lambda: ended(system, job) >= swapped_at + 20, "the first worker goes on")
        first.ask_to_stop()
        assert first.process.wait(60) == 0
        left_at = still_under_way(system, job)

        second = system.worker("second")
        until(lambda: second.log().count("] received") >= 3, "the second worker is asked again and again")
        # Once a minute, not for each hint; of its two processes one may just pass the other.
        assert 1 <= sum("model.bin has SHA-256" in line for line in second.log().splitlines()) <= 2
        assert ended(system, job) == left_at
        assert {chunk.attempt for chunk in chunks(system, job)} <= {0, 1}
        weights.write_bytes(genuine)
        check_counts(system, job, undisturbed.expected)
        assert {chunk.attempt for chunk in chunks(system, job)} == {1}
