"""Claims, leases and the life of a job, on both databases: two never hold what one may."""

import json
import random
import threading
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, Engine, func, select

from db.audit import entries_of
from db.claims import (
    Claim,
    LeaseLostError,
    claim_chunk,
    close_chunk,
    job_of_claim,
    mark_isolation_start,
    release_chunk,
    renew_lease,
    waiting_images,
)
from db.deletion import delete_rows
from db.jobs import finish_job_if_done, unfinished_jobs, view_jobs
from db.models import Chunk, Image, Job, ModelBundle, Prediction
from db.outcomes import Failed, write_outcomes
from db.session import read, transact
from db.status import AuditAction, ChunkStatus, FailureCode, ImageStatus, JobStatus
from db.submission import end_submission, known_paths, record_bundle, withdraw_job
from db.turns import bundle_for_hint
from tests.integration.databases import MadeJob, add_job, at_once, change, expire_lease, forgotten, row


def claim(database: Engine, chunk_id: int, owner: str = "worker 1", lease: float = 60) -> Claim | None:
    return transact(database, lambda connection: claim_chunk(connection, chunk_id, owner, lease))


def claimed(database: Engine, chunk_id: int, owner: str = "worker 1") -> Claim:
    taken = claim(database, chunk_id, owner)
    assert taken is not None
    return taken


def renew(database: Engine, taken: Claim) -> None:
    transact(database, lambda connection: renew_lease(connection, taken, 60))


def end_images(database: Engine, made: MadeJob, image_ids: list[int]) -> None:
    outcomes = [Failed(image_id=image_id, code=FailureCode.MISSING, sentence="gone") for image_id in image_ids]
    transact(
        database, lambda c: write_outcomes(c, outcomes, job_id=made.job_id, bundle_id=made.bundle_id, engine="fake")
    )


def table_sizes(database: Engine) -> dict[str, int]:
    def count(connection: Connection) -> dict[str, int]:
        return {
            table.__tablename__: connection.scalar(select(func.count()).select_from(table)) or 0
            for table in (Job, Chunk, Image, Prediction)
        }

    return read(database, count)


# Claims


def test_of_many_claimants_each_chunk_has_exactly_one(database: Engine) -> None:
    made = add_job(database, *[1] * 24)

    def take_all(owner: str) -> list[Claim]:
        order = random.Random(owner).sample(made.chunk_ids, len(made.chunk_ids))
        return [taken for chunk_id in order if (taken := claim(database, chunk_id, owner)) is not None]

    hauls = at_once(*(lambda owner=owner: take_all(owner) for owner in ("a", "b", "c", "d")))
    claims = [taken for haul in hauls for taken in haul]
    assert sorted(taken.chunk_id for taken in claims) == made.chunk_ids
    for taken in claims:
        found = row(database, Chunk, taken.chunk_id)
        assert (found.owner, found.attempt, found.status) == (taken.owner, 1, ChunkStatus.LEASED)


def test_of_two_claimants_of_one_chunk_one_wins(database: Engine) -> None:
    for _ in range(5):
        (chunk_id,) = add_job(database, 1).chunk_ids
        one, other = at_once(lambda id_=chunk_id: claim(database, id_, "a"), lambda id_=chunk_id: claim(database, id_))
        assert (one is None) != (other is None)


def test_a_claim_begins_the_job_and_holds_the_chunk_for_the_lease(database: Engine) -> None:
    made = add_job(database, 2)
    before = read(database, lambda c: view_jobs(c, job_id=made.job_id))[0]
    assert (before.status, before.started_at) == (JobStatus.QUEUED, None)
    taken = claimed(database, made.chunk_ids[0])
    assert (taken.job_id, taken.attempt, taken.isolated) == (made.job_id, 1, False)
    after = read(database, lambda c: view_jobs(c, job_id=made.job_id))[0]
    assert after.status == JobStatus.RUNNING
    assert after.started_at is not None
    lease = row(database, Chunk, taken.chunk_id).lease_expires_at
    # One machine here, so one clock, whatever writes it.
    assert timedelta(seconds=50) < lease - datetime.now(UTC) < timedelta(seconds=61)
    assert read(database, lambda c: bundle_for_hint(c, taken.chunk_id)) is None


def test_the_start_of_a_job_is_its_first_claim(database: Engine) -> None:
    made = add_job(database, 1, 1)
    claimed(database, made.chunk_ids[0])
    first = row(database, Job, made.job_id).started_at
    claimed(database, made.chunk_ids[1])
    assert row(database, Job, made.job_id).started_at == first


def test_a_hint_about_no_chunk_is_nothing(database: Engine) -> None:
    assert claim(database, 4711) is None
    assert read(database, lambda c: bundle_for_hint(c, 4711)) is None


def test_what_a_worker_must_know_of_its_job(database: Engine) -> None:
    made = add_job(database, 1, root="/archive")
    assert read(database, lambda c: bundle_for_hint(c, made.chunk_ids[0])) == "b" * 64
    taken = claimed(database, made.chunk_ids[0])
    job = read(database, lambda c: job_of_claim(c, taken))
    assert (job.job_id, job.root, job.bundle_sha256, job.policy) == (made.job_id, "/archive", "b" * 64, "youden")
    assert (job.threshold, job.borderline_threshold) == (0.5, 0.4)


def test_an_expired_lease_is_anybodys_and_the_old_owner_may_write_nothing(database: Engine) -> None:
    made = add_job(database, 2)
    old = claimed(database, made.chunk_ids[0], "old")
    assert claim(database, old.chunk_id, "new") is None
    expire_lease(database, old.chunk_id)
    new = claimed(database, old.chunk_id, "new")
    assert (new.attempt, new.isolated) == (2, True)
    with pytest.raises(LeaseLostError):
        renew(database, old)
    end_images(database, made, made.image_ids)
    assert not transact(database, lambda c: close_chunk(c, old))
    transact(database, lambda c: release_chunk(c, old, count_attempt=False))
    found = row(database, Chunk, old.chunk_id)
    assert (found.owner, found.attempt, found.status) == ("new", 2, ChunkStatus.LEASED)
    renew(database, new)


def test_an_owner_who_is_late_but_alone_continues(database: Engine) -> None:
    (chunk_id,) = add_job(database, 1).chunk_ids
    taken = claimed(database, chunk_id)
    expire_lease(database, chunk_id)
    renew(database, taken)
    assert claim(database, chunk_id, "new") is None


@pytest.mark.parametrize("status", [JobStatus.PAUSED, JobStatus.CANCELLED, JobStatus.FINISHED])
def test_a_job_that_was_stopped_takes_no_work(database: Engine, status: JobStatus) -> None:
    made = add_job(database, 1, 1)
    taken = claimed(database, made.chunk_ids[0])
    change(database, Job, made.job_id, status=status)
    assert claim(database, made.chunk_ids[1]) is None
    assert read(database, lambda c: bundle_for_hint(c, made.chunk_ids[1])) is None
    assert forgotten(database, empty=True, hint_after=-60) == []
    with pytest.raises(LeaseLostError):
        renew(database, taken)


@pytest.mark.parametrize(("blameless", "attempt"), [(True, 0), (False, 1)])
def test_a_released_chunk_waits_for_a_new_hint(database: Engine, blameless: bool, attempt: int) -> None:
    (chunk_id,) = add_job(database, 1).chunk_ids
    taken = claimed(database, chunk_id)
    transact(database, lambda c: release_chunk(c, taken, count_attempt=not blameless))
    found = row(database, Chunk, chunk_id)
    assert (found.status, found.attempt) == (ChunkStatus.WAITING, attempt)
    assert (found.owner, found.lease_expires_at, found.hinted_at) == (None, None, None)
    assert forgotten(database) == [chunk_id]
    assert claimed(database, chunk_id).isolated is not blameless


def test_a_chunk_closes_only_when_every_image_has_ended(database: Engine) -> None:
    made = add_job(database, 3)
    taken = claimed(database, made.chunk_ids[0])
    end_images(database, made, made.image_ids[:2])
    assert not transact(database, lambda c: close_chunk(c, taken))
    assert row(database, Chunk, taken.chunk_id).status == ChunkStatus.LEASED
    assert [image.id for image in read(database, lambda c: waiting_images(c, taken.chunk_id))] == made.image_ids[2:]
    end_images(database, made, made.image_ids[2:])
    assert transact(database, lambda c: close_chunk(c, taken))
    assert row(database, Chunk, taken.chunk_id).status == ChunkStatus.DONE
    assert claim(database, taken.chunk_id, "late") is None


def test_breadcrumbs_add_up_and_one_that_is_left_twice_counts_once(database: Engine) -> None:
    made = add_job(database, 2)
    for _ in range(2):
        first, _ = read(database, lambda c: waiting_images(c, made.chunk_ids[0]))
        # As when the answer to a commit was lost and the transaction is tried again.
        for _ in range(2):
            transact(database, lambda c, image=first: mark_isolation_start(c, image))  # type: ignore[misc]
    images = read(database, lambda c: waiting_images(c, made.chunk_ids[0]))
    assert [image.isolation_starts for image in images] == [2, 0]


# The life of a job


def test_the_life_of_a_job(database: Engine) -> None:
    made = add_job(database, 1, 1, submitted=False)

    def status() -> JobStatus:
        found: JobStatus = row(database, Job, made.job_id).status
        return found

    assert status() == JobStatus.SUBMITTING
    transact(database, lambda c: end_submission(c, made.job_id, made.submitter))
    assert status() == JobStatus.QUEUED
    assert read(database, unfinished_jobs) == [made.job_id]
    for chunk_id, image_id in zip(made.chunk_ids, made.image_ids, strict=True):
        assert not transact(database, lambda c: finish_job_if_done(c, made.job_id))
        taken = claimed(database, chunk_id)
        assert status() == JobStatus.RUNNING
        end_images(database, made, [image_id])
        assert transact(database, lambda c, taken=taken: close_chunk(c, taken))
    assert transact(database, lambda c: finish_job_if_done(c, made.job_id))
    job = read(database, lambda c: view_jobs(c, job_id=made.job_id))[0]
    assert job.status == JobStatus.FINISHED
    assert job.started_at is not None
    assert job.finished_at is not None
    assert job.submitted_at <= job.started_at <= job.finished_at
    assert job.finished_at.tzinfo is UTC
    assert not transact(database, lambda c: finish_job_if_done(c, made.job_id))
    assert read(database, unfinished_jobs) == []


def test_a_job_still_being_submitted_is_scored_but_does_not_finish(database: Engine) -> None:
    made = add_job(database, 1, submitted=False)
    taken = claimed(database, made.chunk_ids[0])
    end_images(database, made, made.image_ids)
    assert transact(database, lambda c: close_chunk(c, taken))
    assert not transact(database, lambda c: finish_job_if_done(c, made.job_id))
    transact(database, lambda c: end_submission(c, made.job_id, made.submitter))
    assert row(database, Job, made.job_id).status == JobStatus.RUNNING
    assert transact(database, lambda c: finish_job_if_done(c, made.job_id))


def test_two_who_close_the_last_two_chunks_finish_the_job_once(database: Engine) -> None:
    for _ in range(8):
        made = add_job(database, 1, 1)
        claims = [claimed(database, chunk_id, f"worker {chunk_id}") for chunk_id in made.chunk_ids]
        end_images(database, made, made.image_ids)

        def close_and_finish(taken: Claim) -> bool:
            assert transact(database, lambda c: close_chunk(c, taken))
            return transact(database, lambda c: finish_job_if_done(c, taken.job_id))

        finished = at_once(*(lambda taken=taken: close_and_finish(taken) for taken in claims))
        assert sorted(finished) == [False, True]
        assert row(database, Job, made.job_id).status == JobStatus.FINISHED


def test_two_who_finish_a_job_finish_it_once(database: Engine) -> None:
    for _ in range(8):
        made = add_job(database, 1)
        change(database, Chunk, made.chunk_ids[0], status=ChunkStatus.DONE)
        one, other = at_once(
            *(lambda id_=made.job_id: transact(database, lambda c: finish_job_if_done(c, id_)) for _ in range(2))
        )
        assert one != other


def test_a_withdrawn_job_leaves_an_entry_in_the_audit_log_and_nothing_else(database: Engine) -> None:
    kept = add_job(database, 1)
    made = add_job(database, 2, 1, submitted=False)
    for _ in range(2):
        # Again when the reply was lost.
        assert transact(database, lambda c: withdraw_job(c, made.job_id, made.submitter, actor="me"))
    delete_rows(database, made.job_id)
    assert table_sizes(database) == {"job": 1, "chunk": 1, "image": 1, "prediction": 0}
    assert row(database, Image, kept.image_ids[0]).status == ImageStatus.WAITING
    (entry,) = read(database, lambda c: entries_of(c, made.job_id))
    assert (entry.action, entry.actor) == (AuditAction.DELETED, "me")
    assert json.loads(entry.detail) == {
        "images": 3,
        "request": made.submitter,
        "why": "the submission was interrupted",
    }


def test_a_job_that_a_worker_has_begun_is_not_withdrawn(database: Engine) -> None:
    made = add_job(database, 2, 1, submitted=False)
    taken = claimed(database, made.chunk_ids[0])
    assert not transact(database, lambda c: withdraw_job(c, made.job_id, made.submitter, actor="me"))
    assert table_sizes(database)["image"] == 3
    renew(database, taken)


def test_a_submitted_job_cannot_be_withdrawn(database: Engine) -> None:
    made = add_job(database, 1)
    assert not transact(database, lambda c: withdraw_job(c, made.job_id, made.submitter, actor="me"))
    assert table_sizes(database)["job"] == 1


def test_a_bundle_is_recorded_at_its_first_use(database: Engine) -> None:
    assert add_job(database, 1).bundle_id == add_job(database, 1).bundle_id


def test_two_submitters_of_a_new_bundle_record_it_once(database: Engine) -> None:
    inserted = threading.Event()

    def first(connection: Connection) -> int:
        bundle_id = record_bundle(connection, sha256="c" * 64, name="new", version="1")
        inserted.set()
        threading.Event().wait(0.5)  # holds its transaction open while the other comes
        return bundle_id

    def second() -> int:
        inserted.wait(10)
        return transact(database, lambda c: record_bundle(c, sha256="c" * 64, name="new", version="1"))

    one, other = at_once(lambda: transact(database, first), second)
    assert one == other
    assert read(database, lambda c: c.scalar(select(func.count()).select_from(ModelBundle))) == 1


def test_known_paths_of_a_batch_of_the_largest_chunks(database: Engine) -> None:
    """Intake asks for eight chunks at a time, and a chunk may have 10,000 images."""
    made = add_job(database, 2)
    paths = [f"0/{number}.jpg" for number in range(80_000)]
    assert read(database, lambda c: known_paths(c, made.job_id, paths)) == {"0/0.jpg", "0/1.jpg"}
