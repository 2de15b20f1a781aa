"""Job control, the audit log and the books, on both databases."""

import json
import threading
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import Engine, delete, event, func, insert, select, update
from sqlalchemy.exc import DBAPIError

from db.audit import append_entry, entries_of, verify
from db.claims import LeaseLostError, claim_chunk, claim_unhinted_chunks, close_chunk, renew_lease
from db.job_control import RetryResult, cancel_job, pause_job, resume_job, retry_failed
from db.jobs import finish_job_if_done, view_jobs
from db.models import AuditEntry, Chunk, ChunkGroup, Image, Job, Prediction
from db.outcomes import Failed, Scored, write_outcomes
from db.progress import count_jobs
from db.reconciliation import find_inconsistencies
from db.session import read, transact
from db.status import AuditAction, ChunkStatus, FailureCode, ImageStatus, JobStatus, TriageFlag
from db.submission import SubmissionLostError, end_submission
from tests.integration.databases import MadeJob, add_job, delete_whole, row
from worker.monitor.job_status import job_rate

ACTOR = "night-shift@ward"


def score_all(database: Engine, made: MadeJob, failing: dict[int, FailureCode] | None = None) -> None:
    """Bring every image to its end, some by a failure, and finish the job."""

    def work(connection) -> None:
        claims = [claim_chunk(connection, chunk, f"owner-{chunk}", 60) for chunk in made.chunk_ids]
        outcomes = [
            Failed(image_id=image, code=failing[index], sentence="it failed")
            if failing and index in failing
            else Scored(
                image_id=image,
                image_sha256="a" * 64,
                raw_probability=0.5,
                probability=0.3,
                flag=TriageFlag.LOWER_PRIORITY,
            )
            for index, image in enumerate(made.image_ids)
        ]
        write_outcomes(connection, outcomes, job_id=made.job_id, bundle_id=made.bundle_id, engine="fake")
        assert all(close_chunk(connection, claim) for claim in claims if claim is not None)

    transact(database, work)
    assert transact(database, lambda c: finish_job_if_done(c, made.job_id))


def status_of(database: Engine, made: MadeJob) -> JobStatus:
    (view,) = read(database, lambda c: view_jobs(c, job_id=made.job_id))
    return view.status


def break_the_lock(database: Engine) -> None:
    """As whoever owns the database can: take away what refuses changes of the log."""
    sqlite = ["DROP TRIGGER audit_entry_no_update", "DROP TRIGGER audit_entry_no_delete"]
    postgresql = ["DROP TRIGGER audit_entry_append_only ON audit_entry"]
    for statement in sqlite if database.dialect.name == "sqlite" else postgresql:
        transact(database, lambda c, s=statement: c.exec_driver_sql(s))  # type: ignore[misc]


def test_a_paused_job_hands_out_nothing_and_continues_when_resumed(database: Engine) -> None:
    made = add_job(database, 4)
    claim = transact(database, lambda c: claim_chunk(c, made.chunk_ids[0], "me", 60))
    assert claim is not None
    assert transact(database, lambda c: pause_job(c, made.job_id, actor=ACTOR, request=uuid4().hex))
    with pytest.raises(LeaseLostError):
        transact(database, lambda c: renew_lease(c, claim, 60))
    assert transact(database, lambda c: claim_chunk(c, made.chunk_ids[-1], "you", 60)) is None
    sweep = {"urgent": False, "hint_after": 0, "queue_is_empty": True, "limit": 9}
    assert transact(database, lambda c: claim_unhinted_chunks(c, **sweep)) == []
    assert not transact(database, lambda c: pause_job(c, made.job_id, actor=ACTOR, request=uuid4().hex)), "twice"

    assert transact(database, lambda c: resume_job(c, made.job_id, actor=ACTOR, request=uuid4().hex))
    transact(database, lambda c: renew_lease(c, claim, 60))
    assert status_of(database, made) == JobStatus.RUNNING


def test_a_cancelled_job_takes_no_work_and_keeps_what_it_has(database: Engine) -> None:
    made = add_job(database, 4)
    assert transact(database, lambda c: cancel_job(c, made.job_id, actor=ACTOR, request=uuid4().hex))
    assert transact(database, lambda c: claim_chunk(c, made.chunk_ids[0], "me", 60)) is None
    assert not transact(database, lambda c: resume_job(c, made.job_id, actor=ACTOR, request=uuid4().hex))
    assert not transact(database, lambda c: cancel_job(c, made.job_id, actor=ACTOR, request=uuid4().hex))
    assert read(database, lambda c: find_inconsistencies(c, made.job_id)) == []


def test_failed_images_are_tried_again_by_code(database: Engine) -> None:
    made = add_job(database, 6)
    score_all(database, made, {0: FailureCode.MISSING, 1: FailureCode.MISSING, 5: FailureCode.TRUNCATED})
    retried = transact(
        database, lambda c: retry_failed(c, made.job_id, codes=[FailureCode.MISSING], actor=ACTOR, request=uuid4().hex)
    )
    assert retried == RetryResult(images=2, skipped=0)
    assert status_of(database, made) == JobStatus.RUNNING
    counts = read(database, lambda c: count_jobs(c, [made.job_id]))[made.job_id]
    assert (counts.by_status[ImageStatus.WAITING], counts.by_status[ImageStatus.FAILED]) == (2, 1)
    assert not transact(database, lambda c: finish_job_if_done(c, made.job_id)), "images wait again"
    first = row(database, Image, made.image_ids[0])
    assert (first.failure_code, first.reason, first.size_bytes) == (None, None, None)
    hints = {"urgent": False, "hint_after": 60, "queue_is_empty": False, "limit": 9}
    assert transact(database, lambda c: claim_unhinted_chunks(c, **hints)) == [row(database, Chunk, first.chunk_id).id]


def test_pauses_and_the_time_until_a_retry_are_not_time_that_the_job_took(database: Engine) -> None:
    made = add_job(database, 4)
    transact(database, lambda c: pause_job(c, made.job_id, actor=ACTOR, request=uuid4().hex))
    transact(database, lambda c: resume_job(c, made.job_id, actor=ACTOR, request=uuid4().hex))
    score_all(database, made, {0: FailureCode.MISSING})
    transact(database, lambda c: retry_failed(c, made.job_id, codes=None, actor=ACTOR, request=uuid4().hex))
    score_all(database, made)
    start = row(database, Job, made.job_id).submitted_at
    seconds = {AuditAction.RESUMED: 100, AuditAction.FINISHED: 150, AuditAction.RETRIED: 1150}

    def spread_out(connection) -> None:
        """Paused from 0 to 100, begun at 60, finished from 150 to 1,150, the last image ended at 1,160."""
        told: set[AuditAction] = set()
        for entry in entries_of(connection, made.job_id):
            after = 9_000 if entry.action in told else seconds.get(entry.action, 0)
            told.add(entry.action)
            moved = update(AuditEntry).where(AuditEntry.number == entry.number)
            connection.execute(moved.values(at=start + timedelta(seconds=after)))
        connection.execute(update(ChunkGroup).values(last_completed_at=start + timedelta(seconds=1160)))
        connection.execute(update(Job).values(started_at=start + timedelta(seconds=60)))

    break_the_lock(database)
    transact(database, spread_out)
    assert read(database, lambda c: count_jobs(c, [made.job_id]))[made.job_id].paused_seconds == 40 + 1000
    (view,) = read(database, lambda c: view_jobs(c, job_id=made.job_id))
    counts = read(database, lambda c: count_jobs(c, [made.job_id]))[made.job_id]
    assert job_rate(view, counts) == "60.0 s, 0 images/s"
    # Of a tenth of a second it would be made up.
    assert job_rate(replace(view, started_at=start + timedelta(seconds=1160 - 1040 - 0.1)), counts) == "0.1 s"


def test_a_pause_before_anybody_begins_takes_nothing_off(database: Engine) -> None:
    made = add_job(database, 4)
    transact(database, lambda c: pause_job(c, made.job_id, actor=ACTOR, request=uuid4().hex))
    transact(database, lambda c: resume_job(c, made.job_id, actor=ACTOR, request=uuid4().hex))
    score_all(database, made)
    later = row(database, Job, made.job_id).submitted_at + timedelta(hours=1)

    def shift(connection) -> None:
        connection.execute(update(Job).values(started_at=later))
        connection.execute(update(ChunkGroup).values(last_completed_at=later + timedelta(seconds=10)))
        connection.execute(
            update(AuditEntry).where(AuditEntry.action == AuditAction.RESUMED).values(at=later - timedelta(seconds=1))
        )

    break_the_lock(database)
    transact(database, shift)
    assert read(database, lambda c: count_jobs(c, [made.job_id]))[made.job_id].paused_seconds == 0


def test_more_chunks_are_retried_than_a_statement_takes_values(sqlite_database: Engine) -> None:
    """On SQLite, which takes fewer than PostgreSQL; both are given as many at a time."""
    database = sqlite_database
    made, count = add_job(database, 1), 33_000

    def fill(connection) -> None:
        first = made.chunk_ids[0] + 1
        chunk = {"job_id": made.job_id, "status": ChunkStatus.DONE, "size": 1, "attempt": 1}
        connection.execute(insert(Chunk), [{**chunk, "id": first + index} for index in range(count)])
        image = {"job_id": made.job_id, "status": ImageStatus.FAILED, "failure_code": FailureCode.MISSING}
        connection.execute(
            insert(Image),
            [
                {**image, "chunk_id": first + index, "path": f"{index}.png", "isolation_starts": 0}
                for index in range(count)
            ],
        )

    transact(database, fill)
    retried = transact(database, lambda c: retry_failed(c, made.job_id, codes=None, actor=ACTOR, request=uuid4().hex))
    assert retried == RetryResult(images=count, skipped=0)


def test_chunks_are_retried_part_by_part(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("db.job_control._CHUNKS_PER_QUERY", 2)
    made = add_job(database, 1, 1, 1, 1, 1)
    score_all(database, made, dict.fromkeys(range(5), FailureCode.MISSING))
    assert transact(
        database, lambda c: retry_failed(c, made.job_id, codes=None, actor=ACTOR, request=uuid4().hex)
    ) == RetryResult(images=5, skipped=0)


def test_images_in_a_chunk_that_a_worker_has_in_hand_are_left(database: Engine) -> None:
    made = add_job(database, 2, 2)
    outcomes = [Failed(image_id=image, code=FailureCode.MISSING, sentence="gone") for image in made.image_ids]
    transact(
        database, lambda c: write_outcomes(c, outcomes, job_id=made.job_id, bundle_id=made.bundle_id, engine="fake")
    )
    assert transact(database, lambda c: claim_chunk(c, made.chunk_ids[0], "me", 60))
    retried = transact(database, lambda c: retry_failed(c, made.job_id, codes=None, actor=ACTOR, request=uuid4().hex))
    assert retried == RetryResult(images=2, skipped=2)
    assert [row(database, Image, image).status for image in made.image_ids] == [
        ImageStatus.FAILED,
        ImageStatus.FAILED,
        ImageStatus.WAITING,
        ImageStatus.WAITING,
    ]


def test_nothing_to_retry_leaves_the_job_finished(database: Engine) -> None:
    made = add_job(database, 2)
    score_all(database, made)
    assert transact(
        database, lambda c: retry_failed(c, made.job_id, codes=None, actor=ACTOR, request=uuid4().hex)
    ) == RetryResult(images=0, skipped=0)
    assert status_of(database, made) == JobStatus.FINISHED


def test_a_deleted_job_is_gone_but_its_audit_entries(database: Engine) -> None:
    made, other = add_job(database, 3), add_job(database, 2)
    assert not delete_whole(database, made.job_id), "it still runs"
    score_all(database, made)
    score_all(database, other)
    assert delete_whole(database, made.job_id)
    for table, left in ((Job, 1), (Image, 2), (Prediction, 2), (Chunk, len(other.chunk_ids))):
        assert read(database, lambda c, t=table: c.scalar(select(func.count()).select_from(t))) == left
    entries = read(database, lambda c: entries_of(c, made.job_id))
    assert [entry.action for entry in entries] == [AuditAction.SUBMITTED, AuditAction.FINISHED, AuditAction.DELETED]
    assert entries[-1].actor == "test"


class TestAuditLog:
    """Appended, chained, and broken by any change."""

    @pytest.fixture(autouse=True)
    def log(self, database: Engine) -> None:
        for number in range(1, 6):
            detail = {"images": number, "umlaut": "ä"}
            transact(
                database,
                lambda c, n=number, d=detail: append_entry(
                    c, actor=ACTOR, action=AuditAction.EXPORTED, job_id=n, detail=d
                ),
            )

    def test_an_untouched_log_is_right(self, database: Engine) -> None:
        verdict = read(database, verify)
        assert (verdict.entries, verdict.faults) == (5, [])
        assert json.loads(read(database, entries_of)[2].detail) == {"images": 3, "umlaut": "ä"}

    @pytest.mark.parametrize(
        "change",
        [{"actor": "nobody"}, {"detail": "{}"}, {"job_id": 9}, {"action": AuditAction.DELETED}, {"sha256": "f" * 64}],
        ids=str,
    )
    def test_a_changed_entry_is_found(self, database: Engine, change: dict[str, object]) -> None:
        break_the_lock(database)
        transact(database, lambda c: c.execute(update(AuditEntry).where(AuditEntry.number == 3).values(**change)))
        assert any("entry 3 was changed" in fault for fault in read(database, verify).faults)

    @pytest.mark.parametrize("number", [1, 3])
    def test_a_missing_entry_is_found(self, database: Engine, number: int) -> None:
        break_the_lock(database)
        transact(database, lambda c: c.execute(delete(AuditEntry).where(AuditEntry.number == number)))
        assert any(f"entry {number} is missing" in fault for fault in read(database, verify).faults)

    def test_a_removed_end_is_found_by_the_head_that_was_kept(self, database: Engine) -> None:
        """The chain alone cannot show it: that is why the head is to be kept elsewhere."""
        head = read(database, verify).head
        append = {"actor": ACTOR, "action": AuditAction.EXPORTED, "job_id": 6}
        transact(database, lambda c: append_entry(c, **append))  # type: ignore[arg-type]
        assert read(database, lambda c: verify(c, head=head)).faults == []
        break_the_lock(database)
        transact(database, lambda c: c.execute(delete(AuditEntry).where(AuditEntry.number >= 5)))
        assert read(database, verify).faults == []
        (fault,) = read(database, lambda c: verify(c, head=head)).faults
        assert f"the head {head} is not in the log" in fault

    def test_a_job_whose_end_was_cut_off_the_log_is_found(self, database: Engine) -> None:
        made = add_job(database, 1)
        assert transact(database, lambda c: cancel_job(c, made.job_id, actor=ACTOR, request=uuid4().hex))
        assert read(database, verify).faults == []
        break_the_lock(database)
        transact(database, lambda c: c.execute(delete(AuditEntry).where(AuditEntry.number == 7)))
        assert read(database, verify).faults == [f"no entry says that job {made.job_id} was cancelled"]

    @pytest.mark.parametrize("statement", [update(AuditEntry).values(actor="nobody"), delete(AuditEntry)], ids=str)
    def test_the_database_refuses_a_change(self, database: Engine, statement) -> None:
        with pytest.raises(DBAPIError, match="append-only"):
            transact(database, lambda c: c.execute(statement))
        assert read(database, verify).entries == 5

    def test_many_at_once_leave_one_chain(self, database: Engine) -> None:
        def append() -> None:
            for _ in range(5):
                transact(database, lambda c: append_entry(c, actor=ACTOR, action=AuditAction.PAUSED, job_id=1))

        threads = [threading.Thread(target=append) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        verdict = read(database, verify)
        assert (verdict.entries, verdict.faults) == (25, [])


class TestInconsistencies:
    """What `dermq reconcile` finds."""

    @pytest.fixture
    def made(self, database: Engine) -> MadeJob:
        made = add_job(database, 5)
        score_all(database, made, {4: FailureCode.MISSING})
        add_job(database, 1)
        return made

    def test_consistent_rows(self, database: Engine, made: MadeJob) -> None:
        assert read(database, lambda c: find_inconsistencies(c, made.job_id)) == []

    @pytest.mark.parametrize(
        ("statement", "words"),
        [
            (lambda m: delete(Prediction).where(Prediction.image_id == m.image_ids[0]), "without a prediction"),
            (
                lambda m: update(Image).where(Image.id == m.image_ids[0]).values(status=ImageStatus.WAITING),
                "have no outcome",
            ),
            (lambda m: update(Image).where(Image.id == m.image_ids[4]).values(failure_code=None), "without a code"),
            (lambda m: update(Prediction).values(image_sha256="short"), "without a SHA-256"),
            (
                lambda m: update(Chunk).where(Chunk.id == m.chunk_ids[0]).values(size=99),
                "1 chunks do not hold the number of images",
            ),
            (
                lambda m: update(Image).where(Image.id == m.image_ids[0]).values(completed_at=None),
                "have an outcome without a time",
            ),
            (lambda m: update(Prediction).values(flag=TriageFlag.BORDERLINE), "a flag that does not follow"),
            (
                lambda m: update(Chunk).values(status=ChunkStatus.WAITING),
                "1 chunks are not done, but the job is finished",
            ),
            (lambda m: update(Chunk).values(failed=2), "1 chunks have totals that differ from their images"),
            (lambda m: update(Chunk).values(failure_codes={"missing": 2}), "1 chunks have totals that differ"),
            (lambda m: update(Chunk).values(histogram=None), "1 chunks have totals that differ"),
            (lambda m: update(ChunkGroup).values(scored=1), "1 groups of chunks have totals that differ"),
            (lambda m: update(ChunkGroup).values(images=6), "1 groups of chunks have totals that differ"),
            (
                lambda m: update(Prediction).where(Prediction.image_id == m.image_ids[0]).values(job_id=None),
                "1 images have a prediction that belongs to another job: 1",
            ),
            (
                lambda m: update(ChunkGroup).values(job_id=m.job_id + 1),
                "1 groups of chunks belong to no job or to another one: 1",
            ),
            (
                lambda m: update(Chunk).values(group_id=None),
                "1 groups of chunks belong to no job or to another one: None",
            ),
            (
                lambda m: update(Chunk).values(status=ChunkStatus.LEASED),
                "1 groups of chunks count images of a chunk that a worker has: 1",
            ),
            # With its images: every sum over what is there still adds up.
            (
                lambda m: delete(Chunk).where(Chunk.id == m.chunk_ids[0]),
                "the audit log says that 5 images were submitted",
            ),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_inconsistent_rows(self, database: Engine, made: MadeJob, statement, words: str) -> None:
        transact(database, lambda c: c.execute(statement(made)))
        assert any(words in fault for fault in read(database, lambda c: find_inconsistencies(c, made.job_id)))


def test_a_submission_ends_even_when_a_worker_begins_in_between(database: Engine) -> None:
    """PostgreSQL gives each statement its own view; SQLite lets nobody write in between."""
    made = add_job(database, 2, submitted=False)
    claimed: list[object] = []

    def begin_in_between(connection, cursor, statement, *_: object) -> None:
        if statement.startswith("UPDATE job") and not claimed:
            claimed.append(None)
            transact(database, lambda c: claim_chunk(c, made.chunk_ids[0], "me", 60))

    def end(connection) -> bool:
        if database.dialect.name == "postgresql":
            event.listen(connection, "after_cursor_execute", begin_in_between)
        return end_submission(connection, made.job_id, made.submitter)

    assert transact(database, end)
    assert status_of(database, made) in (JobStatus.QUEUED, JobStatus.RUNNING)
    assert bool(claimed) == (database.dialect.name == "postgresql")
    assert not transact(database, lambda c: end_submission(c, made.job_id, made.submitter)), "twice"


@pytest.mark.parametrize("lost", ["cancelled", "taken over", "deleted"])
def test_a_submission_that_was_lost_at_its_end_does_not_look_like_a_success(database: Engine, lost: str) -> None:
    made = add_job(database, 2, submitted=False)
    if lost == "taken over":
        transact(database, lambda c: c.execute(update(Job).where(Job.id == made.job_id).values(submitter="another")))
    else:
        assert transact(database, lambda c: cancel_job(c, made.job_id, actor=ACTOR, request=uuid4().hex))
    if lost == "deleted":
        assert delete_whole(database, made.job_id)
    with pytest.raises(SubmissionLostError):
        transact(database, lambda c: end_submission(c, made.job_id, made.submitter))


def test_retry_says_what_a_worker_has_in_hand(database: Engine) -> None:
    made = add_job(database, 2, 2)
    transact(database, lambda c: claim_chunk(c, made.chunk_ids[0], "me", 60))
    transact(database, lambda c: claim_chunk(c, made.chunk_ids[1], "you", 60))
    failed = [Failed(image_id=image, code=FailureCode.MISSING, sentence="gone") for image in made.image_ids]
    transact(database, lambda c: write_outcomes(c, failed, job_id=made.job_id, bundle_id=made.bundle_id, engine="fake"))
    transact(
        database,
        lambda c: c.execute(update(Chunk).where(Chunk.id == made.chunk_ids[0]).values(status=ChunkStatus.DONE)),
    )
    retried = transact(database, lambda c: retry_failed(c, made.job_id, codes=None, actor=ACTOR, request=uuid4().hex))
    assert retried == RetryResult(images=2, skipped=2)
