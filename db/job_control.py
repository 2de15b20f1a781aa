"""What operators do to jobs: pause, resume, cancel, retry, delete. Workers see it at their next batch."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, exists, func, select, update

from db.audit import append_entry
from db.models import Chunk, Image, Job, Prediction
from db.status import AuditAction, ChunkStatus, FailureCode, ImageStatus, JobStatus
from db.types import db_now

#: Chunks in one query: PostgreSQL takes 65,535 bound values, SQLite 32,766.
_CHUNKS_PER_QUERY = 10_000


@dataclass(frozen=True, kw_only=True)
class Retried:
    """What a retry did: images that wait again, and failed ones left because a worker has their chunk in hand."""

    images: int
    left: int


def pause_job(connection: Connection, job_id: int, *, actor: str) -> bool:
    """Stop handing out a job's chunks. Returns whether it was queued or running."""
    paused = _move(connection, job_id, (JobStatus.QUEUED, JobStatus.RUNNING), JobStatus.PAUSED)
    if paused:
        append_entry(connection, actor=actor, action=AuditAction.PAUSED, job_id=job_id)
    return paused


def resume_job(connection: Connection, job_id: int, *, actor: str) -> bool:
    """Let a paused job go on; the sweeper sends its hints again. Returns whether it was paused."""
    resumed = _move(connection, job_id, (JobStatus.PAUSED,), JobStatus.RUNNING)
    if resumed:
        _forget_hints(connection, job_id)
        append_entry(connection, actor=actor, action=AuditAction.RESUMED, job_id=job_id)
    return resumed


def cancel_job(connection: Connection, job_id: int, *, actor: str) -> bool:
    """Give a job up; what was scored stays. Returns whether it had not ended before."""
    open_statuses = (JobStatus.SUBMITTING, JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.PAUSED)
    cancelled = _move(connection, job_id, open_statuses, JobStatus.CANCELLED)
    if cancelled:
        connection.execute(update(Job).where(Job.id == job_id).values(finished_at=db_now()))
        append_entry(connection, actor=actor, action=AuditAction.CANCELLED, job_id=job_id)
    return cancelled


def retry_failed(
    connection: Connection, job_id: int, *, codes: Collection[FailureCode] | None, actor: str
) -> Retried | None:
    """Have failed images tried again, under the job's own bundle and policy.

    Their size and time of modification are forgotten, so that a file that was repaired in the meantime is not refused
    for having changed.

    Args:
        job_id: a job that is finished or running.
        codes: only images that failed for one of these reasons, or None for all.
        actor: who asks.

    Returns:
        How many wait again and how many are left, or None when the job is neither finished nor running.
    """
    allowed = (JobStatus.FINISHED, JobStatus.QUEUED, JobStatus.RUNNING)
    # Locked against a worker that finishes the job at this moment: it would not see the chunks reopened here.
    job = select(Job.id).where(Job.id == job_id, Job.status.in_(allowed)).with_for_update(key_share=True)
    if connection.execute(job).one_or_none() is None:
        return None
    wanted = [Image.job_id == job_id, Image.status == ImageStatus.FAILED]
    if codes is not None:
        wanted.append(Image.failure_code.in_(codes))
    chunks = select(Image.chunk_id).where(*wanted).scalar_subquery()
    # Only chunks that nobody has in hand: a worker has already read the list of the others' images.
    idle = update(Chunk).where(Chunk.id.in_(chunks), Chunk.status != ChunkStatus.LEASED)
    reopened = list(
        connection.scalars(idle.values(status=ChunkStatus.WAITING, attempt=0, hinted_at=None).returning(Chunk.id))
    )
    retried = 0
    # By their ids, and not by a query that could find one which was handed back a moment ago: nobody holds that for us.
    for start in range(0, len(reopened), _CHUNKS_PER_QUERY):
        part = reopened[start : start + _CHUNKS_PER_QUERY]
        retried += connection.execute(
            update(Image)
            .where(*wanted, Image.chunk_id.in_(part))
            .values(
                status=ImageStatus.WAITING,
                failure_code=None,
                reason=None,
                careful_starts=0,
                ended_at=None,
                # It may have been repaired, so it may be another file; its size still bounds a batch.
                modified_ns=None,
            )
        ).rowcount
    left = connection.execute(select(func.count()).select_from(Image).where(*wanted)).scalar_one()
    if not retried:
        return Retried(images=0, left=left)
    connection.execute(
        update(Job)
        .where(Job.id == job_id, Job.status == JobStatus.FINISHED)
        .values(status=JobStatus.RUNNING, finished_at=None)
    )
    detail = {"images": retried, "codes": sorted(codes) if codes is not None else "all"}
    append_entry(connection, actor=actor, action=AuditAction.RETRIED, job_id=job_id, detail=detail)
    return Retried(images=retried, left=left)


def delete_job(connection: Connection, job_id: int, *, actor: str) -> bool:
    """Remove a job that has ended, with its images, predictions and patient data; the audit log keeps that it was.

    Returns:
        Whether there was such a job.
    """
    ended = (JobStatus.FINISHED, JobStatus.CANCELLED)
    # Locked against a retry of this moment, which would reopen chunks of a job that is being removed.
    job = select(Job.id).where(Job.id == job_id, Job.status.in_(ended)).with_for_update()
    if connection.execute(job).one_or_none() is None:
        return False
    # Children first and by themselves: the database need not check each row's cascade.
    images = select(Image.id).where(Image.job_id == job_id).scalar_subquery()
    connection.execute(delete(Prediction).where(Prediction.image_id.in_(images)))
    removed = connection.execute(delete(Image).where(Image.job_id == job_id)).rowcount
    connection.execute(delete(Chunk).where(Chunk.job_id == job_id))
    connection.execute(delete(Job).where(Job.id == job_id))
    append_entry(connection, actor=actor, action=AuditAction.DELETED, job_id=job_id, detail={"images": removed})
    return True


def _move(connection: Connection, job_id: int, before: Sequence[JobStatus], after: JobStatus) -> bool:
    moved = connection.execute(update(Job).where(Job.id == job_id, Job.status.in_(before)).values(status=after))
    return moved.rowcount == 1


def _forget_hints(connection: Connection, job_id: int) -> None:
    waiting = (Chunk.job_id == job_id, Chunk.status == ChunkStatus.WAITING)
    if connection.execute(select(exists().where(*waiting))).scalar_one():
        connection.execute(update(Chunk).where(*waiting).values(hinted_at=None))
