"""The diagnosis of jobs that do not progress, on both databases."""

from typing import Any

import pytest
from sqlalchemy import Engine

from db.claims import claim_chunk, close_chunk
from db.jobs import view_jobs
from db.models import Chunk
from db.outcomes import Failed, write_outcomes
from db.progress import held_chunks
from db.session import read, transact
from db.status import ChunkStatus, FailureCode
from db.types import db_now
from tests.integration.databases import MadeJob, add_job, change
from worker.inference.bundle_reference import BundleReference
from worker.monitor.health import run_checks
from worker.monitor.stalls import Stall, StallKind, diagnose
from worker.settings import load_settings

OWNER = "ward-3:4711:0123456789ab"
HERE = BundleReference(sha256="b" * 64, name="synthetic", version="1")


@pytest.fixture(autouse=True)
def the_bundle_of_the_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.monitor.stalls.configured_bundle", lambda settings: HERE)
    monkeypatch.setattr("worker.monitor.stalls.running_bundle", lambda settings: None)


def stall(database: Engine, made: MadeJob) -> Stall | None:
    def look(connection: Any) -> dict[int, Stall]:
        return diagnose(connection, view_jobs(connection, limit=None))

    return read(database, look).get(made.job_id)


def claim(database: Engine, chunk_id: int, **values: Any) -> Any:
    taken = transact(database, lambda connection: claim_chunk(connection, chunk_id, OWNER, 60))
    if values:
        change(database, Chunk, chunk_id, **values)
    return taken


def test_a_worker_that_finishes_nothing_is_named(database: Engine) -> None:
    made = add_job(database, 3, 3)
    claim(database, made.chunk_ids[0], claimed_at=db_now(-130))
    found = stall(database, made)
    assert found is not None
    assert found.kind is StallKind.SILENT
    assert "No outcome was written for 2 minutes" in found.text
    assert f"The worker on ward-3, process 4711, has chunk {made.chunk_ids[0]}" in found.text
    # Another process of the same job progresses: the first may be at a large image.
    claim(database, made.chunk_ids[1])
    assert stall(database, made) is None


def test_an_outcome_ends_the_silence(database: Engine) -> None:
    made = add_job(database, 3)
    claim(database, made.chunk_ids[0], claimed_at=db_now(-300))
    assert stall(database, made) is not None
    outcome = Failed(image_id=made.image_ids[0], code=FailureCode.MISSING, sentence="gone")
    transact(
        database, lambda c: write_outcomes(c, [outcome], job_id=made.job_id, bundle_id=made.bundle_id, engine="none")
    )
    assert stall(database, made) is None
    (held,) = read(database, held_chunks)
    assert 0 <= held.silent_seconds < 60
    assert 0 < held.lease_seconds_left <= 60


def test_a_frozen_worker_is_named_when_its_lease_has_ended(database: Engine) -> None:
    made = add_job(database, 3)
    claim(database, made.chunk_ids[0], lease_expires_at=db_now(-45))
    found = stall(database, made)
    assert found is not None
    assert found.kind is StallKind.LEASE_EXPIRED
    assert "its lease ended 45 seconds ago: the process is frozen or dead" in found.text


def test_a_claim_from_before_the_time_was_recorded_counts_as_progress(database: Engine) -> None:
    made = add_job(database, 3)
    claim(database, made.chunk_ids[0], claimed_at=None)
    assert stall(database, made) is None


def test_a_job_behind_others_waits_for_its_turn(database: Engine) -> None:
    first, second = add_job(database, 2), add_job(database, 2)
    claim(database, first.chunk_ids[0])
    found = stall(database, second)
    assert found is not None
    assert found.kind is StallKind.WAITS_ITS_TURN
    assert f"workers are scoring job {first.job_id}" in found.text
    change(database, Chunk, first.chunk_ids[0], claimed_at=db_now(-500))
    found = stall(database, second)
    assert found is not None
    assert found.kind is StallKind.WAITS_ITS_TURN, "the cause is named at the first job"
    assert f"workers are held up by job {first.job_id}" in found.text
    change(database, Chunk, first.chunk_ids[0], lease_expires_at=db_now(-500))
    found = stall(database, second)
    assert found is not None
    assert found.kind is StallKind.LEASE_EXPIRED
    assert f"has chunk {first.chunk_ids[0]}" in found.text, "the frozen worker is the cause for both jobs"
    change(database, Chunk, first.chunk_ids[0], status=ChunkStatus.WAITING)
    found = stall(database, second)
    assert found is not None
    assert found.kind is StallKind.NO_WORKER


def test_a_job_that_needs_another_bundle_says_so(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    made = add_job(database, 2)
    monkeypatch.setattr(
        "worker.monitor.stalls.configured_bundle", lambda settings: BundleReference(sha256="c", name="o", version="2")
    )
    found = stall(database, made)
    assert found is not None
    assert found.kind is StallKind.WRONG_BUNDLE


def test_a_finished_job_is_not_stalled(database: Engine) -> None:
    made = add_job(database, 1)
    taken = claim(database, made.chunk_ids[0])
    outcome = Failed(image_id=made.image_ids[0], code=FailureCode.MISSING, sentence="gone")

    def end(connection: Any) -> None:
        write_outcomes(connection, [outcome], job_id=made.job_id, bundle_id=made.bundle_id, engine="none")
        assert close_chunk(connection, taken)

    transact(database, end)
    assert read(database, held_chunks) == []


def test_check_fails_on_a_stalled_job_and_not_on_one_that_waits(
    sqlite_database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DERMQ_DATABASE_URL", str(sqlite_database.url))
    monkeypatch.setenv("DERMQ_SWEEP_INTERVAL", "0.1")
    monkeypatch.setattr("worker.monitor.health._AFTER_SWEEP", 0.1)
    monkeypatch.setattr("worker.monitor.health._LOOK_AGAIN", 0.05)
    monkeypatch.setattr("worker.monitor.health._check_bundle", lambda settings: "fine")
    load_settings.cache_clear()

    def jobs_check() -> Any:
        return {each.component: each for each in run_checks(load_settings())}["jobs"]

    assert jobs_check().text == "none under way"
    first, second = add_job(sqlite_database, 2), add_job(sqlite_database, 2)
    assert not jobs_check().ok
    assert f"Jobs {first.job_id}, {second.job_id}: No worker is scoring it" in jobs_check().text
    claim(sqlite_database, first.chunk_ids[0])
    assert jobs_check().text == "2 under way"
    change(sqlite_database, Chunk, first.chunk_ids[0], claimed_at=db_now(-500))
    assert jobs_check().text.startswith(f"Job {first.job_id}: No outcome was written for 8 minutes")
    assert f"Job {second.job_id}" not in jobs_check().text
