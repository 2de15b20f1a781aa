"""A submission that was killed, taken over, cancelled or cut off: it is gone on with, and nothing is taken in twice."""

import io
import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from rich.console import Console
from sqlalchemy import Connection, Engine, select, update
from sqlalchemy.exc import OperationalError

from db.audit import entries_of
from db.claims import claim_chunk, close_chunk
from db.job_control import cancel_job
from db.jobs import view_jobs
from db.models import Chunk, Image, Job
from db.outcomes import Failed, write_outcomes
from db.progress import count_images
from db.reconciliation import find_inconsistencies
from db.session import read, transact
from db.status import AuditAction, ChunkStatus, FailureCode, JobStatus
from db.types import db_now
from tests.integration.databases import at_once, delete_whole
from tests.integration.submissions import paths, put, rows_in, submission
from worker.errors import SubmissionError
from worker.inference.bundle import Bundle
from worker.intake.submission import SubmissionResult, submit
from worker.monitor.terminal_progress import watch


class _KilledError(BaseException):
    """Stands for kill -9: nothing of intake's own cleaning up may run after it."""


def kill_at(images: int) -> Callable[[int], None]:
    """An ``on_progress`` that ends intake as kill -9 would: its rows stay, nobody cleans up."""

    def stop(seen: int) -> None:
        if seen >= images:
            raise _KilledError

    return stop


def as_if_dead(database: Engine) -> None:
    """The submitter is no process of this host, and its lease has run out."""
    transact(
        database, lambda c: c.execute(update(Job).values(submitter="elsewhere:1:a", submitter_expires_at=db_now(-1)))
    )


def test_a_deleted_jobs_number_is_not_given_again(
    database: Engine, app: Celery, bundle: Bundle, tmp_path: Path
) -> None:
    """The audit log keeps what was done to it under that number."""
    source = put(tmp_path / "in", "1.jpg")
    numbers = []
    for _ in range(3):
        numbers.append(submit(submission(source), database=database, app=app, bundle=bundle).job_id)
        transact(database, lambda c: cancel_job(c, numbers[-1], actor="test", request=uuid4().hex))
        assert delete_whole(database, numbers[-1])
    assert numbers == sorted(set(numbers))


def test_a_killed_submission_is_resumed(database: Engine, app: Celery, bundle: Bundle, tmp_path: Path) -> None:
    source = put(tmp_path / "in", *(f"{number:02}.jpg" for number in range(40)))
    stop = kill_at(32)
    with pytest.raises(_KilledError):
        submit(submission(source), database=database, app=app, bundle=bundle, on_progress=stop)
    as_if_dead(database)
    (job,) = read(database, lambda c: view_jobs(c))
    assert (job.status, job.interrupted) == (JobStatus.SUBMITTING, True)
    put(source, "99.jpg")

    intake = submit(submission(source), database=database, app=app, bundle=bundle)
    assert (intake.job_id, intake.resumed) == (job.id, True)
    assert (intake.images, intake.repeated, intake.not_found) == (41, 0, 0)
    assert paths(database, intake) == [*(f"{number:02}.jpg" for number in range(40)), "99.jpg"]
    (job,) = read(database, lambda c: view_jobs(c))
    assert (job.status, job.interrupted) == (JobStatus.QUEUED, False)
    assert "resumes an interrupted submission" in "\n".join(intake.notes())
    assert [entry.action for entry in read(database, lambda c: entries_of(c, job.id))] == [AuditAction.SUBMITTED]


def test_the_number_is_printed_while_the_submission_can_still_be_resumed(
    database: Engine, app: Celery, bundle: Bundle, tmp_path: Path
) -> None:
    """Killed between telling and ending: whoever submits again gets the same job, not a second one."""
    source = put(tmp_path / "in", *(f"{number:02}.jpg" for number in range(20)))
    told: list[tuple[int, JobStatus, int | None]] = []
    stop = kill_at(0)

    def tell(job_id: int) -> None:
        (job,) = read(database, lambda c: view_jobs(c))
        told.append((job_id, job.status, rows_in(database, Image)[0]))
        stop(0)

    with pytest.raises(_KilledError):
        submit(submission(source), database=database, app=app, bundle=bundle, on_recorded=tell)
    as_if_dead(database)
    intake = submit(submission(source), database=database, app=app, bundle=bundle)
    assert told == [(intake.job_id, JobStatus.SUBMITTING, 20)]
    assert (intake.resumed, intake.images) == (True, 20)
    assert rows_in(database, Job, Image) == [1, 20]


@pytest.mark.parametrize("changes", [{"policy": "sensitivity:0.95"}, {"urgent": True}, {"force": True}])
def test_another_kind_of_submission_is_a_job_of_its_own(
    sqlite_database: Engine,
    app: Celery,
    bundle: Bundle,
    tmp_path: Path,
    changes: dict[str, Any],
) -> None:
    source = put(tmp_path / "in", *(f"{number:02}.jpg" for number in range(40)))
    stop = kill_at(16)
    with pytest.raises(_KilledError):
        submit(submission(source), database=sqlite_database, app=app, bundle=bundle, on_progress=stop)
    as_if_dead(sqlite_database)
    intake = submit(submission(source, **changes), database=sqlite_database, app=app, bundle=bundle)
    assert (intake.resumed, intake.images) == (False, 40)
    assert rows_in(sqlite_database, Job) == [2]


def test_a_live_submission_is_not_resumed_by_another(
    sqlite_database: Engine, app: Celery, bundle: Bundle, tmp_path: Path
) -> None:
    source = put(tmp_path / "in", *(f"{number:02}.jpg" for number in range(40)))
    refused = []

    def submit_again(seen: int) -> None:
        if not refused:
            with pytest.raises(SubmissionError, match="is submitting the same source") as caught:
                submit(submission(source), database=sqlite_database, app=app, bundle=bundle)
            refused.append(str(caught.value))

    intake = submit(submission(source), database=sqlite_database, app=app, bundle=bundle, on_progress=submit_again)
    assert intake.images == 40
    assert f"{os.getpid()} on {socket.gethostname()}" in refused[0]
    assert "submit again in 60 s" in refused[0]


def test_a_submitter_of_this_host_that_died_is_not_waited_for(
    sqlite_database: Engine, app: Celery, bundle: Bundle, tmp_path: Path
) -> None:
    source = put(tmp_path / "in", *(f"{number:02}.jpg" for number in range(40)))
    stop = kill_at(16)
    with pytest.raises(_KilledError):
        submit(submission(source), database=sqlite_database, app=app, bundle=bundle, on_progress=stop)
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    dead = f"{socket.gethostname()}:{gone.pid}:a"
    transact(sqlite_database, lambda c: c.execute(update(Job).values(submitter=dead)))
    assert submit(submission(source), database=sqlite_database, app=app, bundle=bundle).resumed


def test_a_submitter_that_lost_its_job_adds_nothing_and_withdraws_nothing(
    database: Engine, app: Celery, bundle: Bundle, tmp_path: Path
) -> None:
    """As after SIGSTOP: meanwhile another has gone on with the job."""
    source = put(tmp_path / "in", *(f"{number:02}.jpg" for number in range(40)))
    taken: list[SubmissionResult] = []

    def take_over(seen: int) -> None:
        if not taken:
            as_if_dead(database)
            taken.append(submit(submission(source), database=database, app=app, bundle=bundle))

    with pytest.raises(SubmissionError, match="or another `dermq submit` resumed it"):
        submit(submission(source), database=database, app=app, bundle=bundle, on_progress=take_over)
    assert taken[0].resumed
    assert rows_in(database, Job, Image) == [1, 40]


def test_a_job_that_is_cancelled_while_it_is_taken_in_ends_the_submission(
    sqlite_database: Engine, app: Celery, bundle: Bundle, tmp_path: Path
) -> None:
    source = put(tmp_path / "in", *(f"{number:02}.jpg" for number in range(40)))

    def cancel(seen: int) -> None:
        transact(sqlite_database, lambda c: cancel_job(c, 1, actor="night-shift@ward", request=uuid4().hex))

    with pytest.raises(SubmissionError, match="was cancelled"):
        submit(submission(source), database=sqlite_database, app=app, bundle=bundle, on_progress=cancel)
    assert rows_in(sqlite_database, Job, Image) == [1, 16]


def test_a_database_that_fails_leaves_the_submission_to_be_resumed(
    sqlite_database: Engine, app: Celery, bundle: Bundle, tmp_path: Path
) -> None:
    source = put(tmp_path / "in", *(f"{number:02}.jpg" for number in range(40)))

    def fail(seen: int) -> None:
        raise OperationalError("INSERT", None, Exception("disk I/O error"))

    with pytest.raises(OperationalError):
        submit(submission(source), database=sqlite_database, app=app, bundle=bundle, on_progress=fail)
    assert rows_in(sqlite_database, Job, Image) == [1, 16]
    as_if_dead(sqlite_database)
    assert submit(submission(source), database=sqlite_database, app=app, bundle=bundle).images == 40


def test_counts_are_right_when_the_answer_to_a_commit_was_lost(
    sqlite_database: Engine, app: Celery, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transaction is tried again and finds everything there already: images of this submission all the same."""
    source = put(tmp_path / "in", *(f"{number:02}.jpg" for number in range(20)))

    def twice(database: Engine, work: Any) -> Any:
        transact(database, work)
        return transact(database, work)

    monkeypatch.setattr("worker.intake.submission.transact", twice)
    intake = submit(submission(source), database=sqlite_database, app=app, bundle=bundle)
    assert (intake.images, intake.repeated) == (20, 0)
    assert rows_in(sqlite_database, Job, Image) == [1, 20]
    assert [entry.action for entry in read(sqlite_database, lambda c: entries_of(c, 1))] == [AuditAction.SUBMITTED]


def begin_and_end_everything(database: Engine) -> None:
    """As a warm worker does while intake is still busy: every image fails at once, every chunk is closed."""

    def work(connection: Connection) -> None:
        for chunk_id in connection.scalars(select(Chunk.id).where(Chunk.status == ChunkStatus.WAITING)).all():
            claim = claim_chunk(connection, chunk_id, "quick", 60)
            assert claim is not None
            images = connection.scalars(select(Image.id).where(Image.chunk_id == chunk_id)).all()
            failed = [Failed(image_id=image, code=FailureCode.MISSING, sentence="gone") for image in images]
            write_outcomes(connection, failed, job_id=1, bundle_id=1, engine="fake")
            assert close_chunk(connection, claim)

    transact(database, work)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(5, "Input/output error"), SystemExit(143)], ids=repr)
def test_a_submission_interrupted_after_work_began_can_be_resumed(
    database: Engine, app: Celery, bundle: Bundle, tmp_path: Path, error: BaseException
) -> None:
    source = put(tmp_path / "in", *(f"{number:02}.jpg" for number in range(40)))

    def break_off(images: int) -> None:
        if images > 16:
            begin_and_end_everything(database)
            raise error

    expected = SystemExit if isinstance(error, SystemExit) else SubmissionError
    with pytest.raises(expected) as caught:
        submit(submission(source), database=database, app=app, bundle=bundle, on_progress=break_off)
    if expected is SubmissionError:
        assert "keeps the images recorded so far" in str(caught.value)
    (job,) = read(database, lambda c: view_jobs(c))
    # At once after Ctrl-C: for a minute, status said that the images are still being submitted.
    assert job.interrupted == (error is KeyboardInterrupt)
    as_if_dead(database)
    # All that was taken in has ended, and more will not come by itself: who watches is told, and the books say so.
    said = io.StringIO()
    assert watch(database, [job.id], Console(file=said))[0].interrupted
    # Seen once, a rate is not known; nought would say that it stands still.
    assert "32 of 32" in said.getvalue()
    assert "/s" not in said.getvalue()
    assert ["interrupted" in fault for fault in read(database, lambda c: find_inconsistencies(c, job.id))] == [True]
    intake = submit(submission(source), database=database, app=app, bundle=bundle)
    assert (intake.resumed, intake.images) == (True, 40)
    assert read(database, lambda c: count_images(c, intake.job_id)).completed == 32


def test_a_job_that_is_scored_before_its_submission_ends_is_finished_without_a_sweeper(
    database: Engine, app: Celery, bundle: Bundle, tmp_path: Path
) -> None:
    source = put(tmp_path / "in", "only.jpg")
    submit(
        submission(source),
        database=database,
        app=app,
        bundle=bundle,
        on_recorded=lambda _: begin_and_end_everything(database),
    )
    (job,) = read(database, lambda c: view_jobs(c))
    assert job.status == JobStatus.FINISHED
    assert read(database, lambda c: find_inconsistencies(c, job.id)) == []


def test_two_that_submit_the_same_source_at_once_make_one_job(
    database: Engine, app: Celery, bundle: Bundle, tmp_path: Path
) -> None:
    source = put(tmp_path / "in", *(f"{number:02}.jpg" for number in range(40)))
    refused: list[str] = []

    def submit_once() -> None:
        try:
            submit(submission(source), database=database, app=app, bundle=bundle, on_progress=lambda _: time.sleep(0.2))
        except SubmissionError as error:
            refused.append(str(error))

    at_once(submit_once, submit_once)
    assert len(refused) == 1
    assert "is submitting the same source" in refused[0]
    assert rows_in(database, Job, Image) == [1, 40]
