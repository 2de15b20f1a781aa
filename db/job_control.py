"""What operators do to jobs: pause, resume, cancel, retry. Workers see it at their next batch.

Each function takes a ``request``, a text unique to the operator's command, and keeps it in the audit log. `transact`
runs a transaction again when the reply to its commit was lost; the request shows that the command was already carried
out.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, exists, func, select, update

from db.audit import append_entry, find_entry
from db.models import Chunk, Image, Job
from db.status import AuditAction, ChunkStatus, FailureCode, ImageStatus, JobStatus
from db.totals import refresh_groups, write_chunk_totals
from db.types import db_now

#: Chunks in one query: PostgreSQL takes 65,535 bound values, SQLite 32,766.
_CHUNKS_PER_QUERY = 10_000


@dataclass(frozen=True, kw_only=True)
class RetryResult:
    """What a retry did.

    Args:
        images: failed images that wait again.
        skipped: failed images that were left alone, because a worker has their chunk.
    """

    images: int
    skipped: int


def pause_job(connection: Connection, job_id: int, *, actor: str, request: str) -> bool:
    """Stop handing out a job's chunks. Returns whether it was queued or running."""
    if _was_done(connection, job_id, AuditAction.PAUSED, request):
        return True
    paused = _move(connection, job_id, (JobStatus.QUEUED, JobStatus.RUNNING), JobStatus.PAUSED)
    if paused:
        _record(connection, job_id, AuditAction.PAUSED, actor=actor, request=request)
    return paused


def resume_job(connection: Connection, job_id: int, *, actor: str, request: str) -> bool:
    """Let workers claim a paused job's chunks again; the sweeper sends its hints. Returns whether it was paused."""
    if _was_done(connection, job_id, AuditAction.RESUMED, request):
        return True
    resumed = _move(connection, job_id, (JobStatus.PAUSED,), JobStatus.RUNNING)
    if resumed:
        clear_hints(connection, job_id)
        _record(connection, job_id, AuditAction.RESUMED, actor=actor, request=request)
    return resumed


def cancel_job(connection: Connection, job_id: int, *, actor: str, request: str) -> bool:
    """Cancel a job; outcomes so far are kept. Returns whether it was neither finished nor cancelled before."""
    if _was_done(connection, job_id, AuditAction.CANCELLED, request):
        return True
    open_statuses = (JobStatus.SUBMITTING, JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.PAUSED)
    cancelled = _move(connection, job_id, open_statuses, JobStatus.CANCELLED)
    if cancelled:
        connection.execute(update(Job).where(Job.id == job_id).values(finished_at=db_now()))
        _record(connection, job_id, AuditAction.CANCELLED, actor=actor, request=request)
    return cancelled


def retry_failed(
    connection: Connection, job_id: int, *, codes: Collection[FailureCode] | None, actor: str, request: str
) -> RetryResult | None:
    """Let workers score failed images again, with the job's own bundle and policy.

    The recorded modification times are cleared, so that a file repaired in the meantime is not refused as changed.

    Args:
        job_id: a job that is finished, queued or running.
        codes: retry only images with one of these failure codes. None retries all.
        actor: who asks.
        request: unique to this command.

    Returns:
        The numbers of images. None when the job is in another state.
    """
    if (done := find_entry(connection, job_id, AuditAction.RETRIED, request)) is not None:
        return RetryResult(images=int(done["images"]), skipped=int(done["skipped"]))
    allowed = (JobStatus.FINISHED, JobStatus.QUEUED, JobStatus.RUNNING)
    # Lock against a worker that finishes the job at this moment: it would not see the chunks that are reopened here.
    job = select(Job.id).where(Job.id == job_id, Job.status.in_(allowed)).with_for_update(key_share=True)
    if connection.execute(job).one_or_none() is None:
        return None
    wanted = [Image.job_id == job_id, Image.status == ImageStatus.FAILED]
    if codes is not None:
        wanted.append(Image.failure_code.in_(codes))
    chunks = select(Image.chunk_id).where(*wanted).scalar_subquery()
    # Only chunks without a lease: the worker that holds one has already read the list of its images.
    idle = update(Chunk).where(Chunk.id.in_(chunks), Chunk.status != ChunkStatus.LEASED)
    changes = {"status": ChunkStatus.WAITING, "attempt": 0, "hinted_at": None}
    if codes is None:
        # No failed image is left in them. With codes their images are counted, below.
        changes |= {"failed": 0, "failure_codes": None}
    reopened = list(connection.scalars(idle.values(changes).returning(Chunk.id)))
    retried = 0
    # By id, not by a query: a query could find a chunk that was released a moment ago and is not locked here.
    for start in range(0, len(reopened), _CHUNKS_PER_QUERY):
        part = reopened[start : start + _CHUNKS_PER_QUERY]
        retried += connection.execute(
            update(Image)
            .where(*wanted, Image.chunk_id.in_(part))
            .values(
                status=ImageStatus.WAITING,
                failure_code=None,
                reason=None,
                isolation_starts=0,
                completed_at=None,
                # The file may have been repaired. Its recorded size stays: it bounds the size of a batch.
                mtime_ns=None,
            )
        ).rowcount
    if codes is not None:
        write_chunk_totals(connection, reopened)
    refresh_groups(connection, reopened)
    skipped = connection.execute(select(func.count()).select_from(Image).where(*wanted)).scalar_one()
    if not retried:
        return RetryResult(images=0, skipped=skipped)
    connection.execute(
        update(Job)
        .where(Job.id == job_id, Job.status == JobStatus.FINISHED)
        .values(status=JobStatus.RUNNING, finished_at=None, notice=None)
    )
    _record(
        connection,
        job_id,
        AuditAction.RETRIED,
        actor=actor,
        request=request,
        images=retried,
        skipped=skipped,
        codes=sorted(codes) if codes is not None else "all",
    )
    return RetryResult(images=retried, skipped=skipped)


def _record(
    connection: Connection, job_id: int, action: AuditAction, *, actor: str, request: str, **detail: object
) -> None:
    append_entry(connection, actor=actor, action=action, job_id=job_id, detail={**detail, "request": request})


def _was_done(connection: Connection, job_id: int, action: AuditAction, request: str) -> bool:
    return find_entry(connection, job_id, action, request) is not None


def _move(connection: Connection, job_id: int, before: Sequence[JobStatus], after: JobStatus) -> bool:
    moved = connection.execute(update(Job).where(Job.id == job_id, Job.status.in_(before)).values(status=after))
    return moved.rowcount == 1


def clear_hints(connection: Connection, job_id: int) -> None:
    """Let the sweeper send new hints for the waiting chunks of a job."""
    waiting = (Chunk.job_id == job_id, Chunk.status == ChunkStatus.WAITING)
    if connection.execute(select(exists().where(*waiting))).scalar_one():
        connection.execute(update(Chunk).where(*waiting).values(hinted_at=None))
