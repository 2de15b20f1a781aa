"""Deleting jobs with all their data, a few chunks in a transaction, so that other jobs keep working meanwhile.

A job that is being deleted has the status ``deleting``. When the process dies half way, the same command finishes it.
"""

from collections.abc import Callable

from sqlalchemy import ColumnElement, Connection, Engine, and_, delete, or_, select, update

from db.audit import append_entry, find_entry
from db.models import Chunk, ChunkGroup, Feedback, Image, Job, Prediction
from db.session import transact
from db.status import AuditAction, JobStatus
from db.totals import totals_of_jobs
from db.types import db_now

#: Chunks deleted in one transaction: some 1,000 images, a tenth of a second in a large database.
_CHUNKS_PER_TRANSACTION = 8
#: Statuses in which a job can be deleted. A deletion that was interrupted is finished.
DELETABLE = (JobStatus.FINISHED, JobStatus.CANCELLED, JobStatus.DELETING)


def begin_deletion(
    connection: Connection, job_id: int, *, actor: str, request: str, older_than_days: int | None = None
) -> bool:
    """Mark a finished or cancelled job as being deleted, and log it. `delete_rows` does the rest.

    A deletion that was interrupted was logged when it began. It is finished without a second entry.

    Args:
        job_id: the job.
        actor: who asks.
        request: unique to this command, so that a transaction that runs again logs once.
        older_than_days: only if the job ended longer ago: it may have been retried since it was chosen.

    Returns:
        Whether there was such a job.
    """
    if find_entry(connection, job_id, AuditAction.DELETED, request) is not None:
        return True
    # Lock against a retry at this moment, which would reopen chunks of a job that is being deleted.
    allowed = Job.status.in_(DELETABLE) if older_than_days is None else _prunable(older_than_days)
    job = select(Job.status).where(Job.id == job_id, allowed).with_for_update()
    status = connection.execute(job).scalar_one_or_none()
    if status is not None and status != JobStatus.DELETING:
        why = None if older_than_days is None else f"it was older than {older_than_days} days"
        mark_deleting(connection, job_id, actor=actor, request=request, why=why)
    return status is not None


def mark_deleting(connection: Connection, job_id: int, *, actor: str, request: str, why: str | None) -> None:
    """Set the status and log the deletion. The caller has locked the job and checked its status."""
    connection.execute(update(Job).where(Job.id == job_id).values(status=JobStatus.DELETING))
    detail = {"images": totals_of_jobs(connection, [job_id])[job_id].submitted, "request": request}
    append_entry(
        connection,
        actor=actor,
        action=AuditAction.DELETED,
        job_id=job_id,
        detail=detail if why is None else {**detail, "why": why},
    )


def delete_rows(database: Engine, job_id: int, on_progress: Callable[[int], None] = lambda images: None) -> None:
    """Delete the rows of a job that `begin_deletion` has marked, images and predictions first. The audit log is kept.

    Args:
        database: from `db.session.open_database`.
        job_id: the job.
        on_progress: called after each transaction with the number of images deleted so far.
    """
    deleted = 0
    while (images := transact(database, lambda connection: _delete_part(connection, job_id))) is not None:
        deleted += images
        on_progress(deleted)


def _delete_part(connection: Connection, job_id: int) -> int | None:
    """Delete some chunks; without any left, the job. Returns the number of images, or None when the job is gone."""
    deleting = select(Job.id).where(Job.id == job_id, Job.status == JobStatus.DELETING)
    # In no order: sorting would read all that are left, each time.
    chosen = select(Chunk.id).where(Chunk.job_id.in_(deleting)).limit(_CHUNKS_PER_TRANSACTION)
    chunks = list(connection.scalars(chosen))
    if not chunks:
        connection.execute(delete(ChunkGroup).where(ChunkGroup.job_id.in_(deleting)))
        connection.execute(delete(Job).where(Job.id == job_id, Job.status == JobStatus.DELETING))
        return None
    # Children first and explicitly, so that the database need not follow the cascade of each row.
    images = select(Image.id).where(Image.chunk_id.in_(chunks)).scalar_subquery()
    connection.execute(delete(Prediction).where(Prediction.image_id.in_(images)))
    connection.execute(delete(Feedback).where(Feedback.image_id.in_(images)))
    deleted = connection.execute(delete(Image).where(Image.chunk_id.in_(chunks))).rowcount
    connection.execute(delete(Chunk).where(Chunk.id.in_(chunks)))
    return deleted


def jobs_to_prune(connection: Connection, older_than_days: int) -> list[int]:
    """Finished and cancelled jobs that ended longer ago than that, and interrupted deletions; oldest first."""
    return list(connection.scalars(select(Job.id).where(_prunable(older_than_days)).order_by(Job.id)))


def _prunable(older_than_days: int) -> ColumnElement[bool]:
    ended = Job.status.in_((JobStatus.FINISHED, JobStatus.CANCELLED))
    old = Job.finished_at < db_now(-86_400.0 * older_than_days)
    return or_(and_(ended, old), Job.status == JobStatus.DELETING)
