"""Reconciliation: checks that every image of a job was counted exactly once and that its rows are consistent."""

import json

from sqlalchemy import ColumnElement, Connection, Select, case, exists, func, select

from db.audit import entries_of
from db.jobs import JobView, view_jobs
from db.models import Chunk, Image, Prediction
from db.progress import count_statuses
from db.status import AuditAction, ChunkStatus, ImageStatus, JobStatus, TriageFlag

#: Image ids named in a message. The others are counted.
_NAMED = 10


def find_inconsistencies(connection: Connection, job_id: int) -> list[str]:
    """Check a job's rows.

    Args:
        job_id: any job.

    Returns:
        A sentence for each inconsistency, with image ids. Empty when the rows are consistent. Waiting images of a job
        that still runs are no inconsistency.
    """
    (job,) = view_jobs(connection, job_id=job_id)
    found: list[str] = []
    if job.interrupted:
        found.append("its submission was interrupted, so images may be missing. Run the same `dermq submit` again")

    def images(what: str, *conditions: ColumnElement[bool]) -> None:
        query = select(Image.id).where(Image.job_id == job_id, *conditions).order_by(Image.id)
        if ids := list(connection.scalars(query)):
            rest = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
            found.append(f"{len(ids)} images {what}: {', '.join(map(str, ids[:_NAMED]))}{rest}")

    has_prediction = exists().where(Prediction.image_id == Image.id)
    if job.status is JobStatus.FINISHED:
        images("of a finished job have no outcome", Image.status == ImageStatus.WAITING)
    images("are scored without a prediction", Image.status == ImageStatus.SCORED, ~has_prediction)
    images("have a prediction without being scored", Image.status != ImageStatus.SCORED, has_prediction)
    images("failed without a code", Image.status == ImageStatus.FAILED, Image.failure_code.is_(None))
    images("are ungradable without a reason", Image.status == ImageStatus.UNGRADABLE, Image.ungradable_reason.is_(None))
    images("are in a chunk of another job", exists().where(Chunk.id == Image.chunk_id, Chunk.job_id != job_id))
    other_bundle = exists().where(Prediction.image_id == Image.id, Prediction.bundle_id != job.bundle_id)
    images("were scored with another bundle than the job's", other_bundle)
    images("have an outcome without a time", Image.status != ImageStatus.WAITING, Image.completed_at.is_(None))
    images("are scored and have a failure code", Image.status == ImageStatus.SCORED, Image.failure_code.is_not(None))
    wrong_flag = exists().where(Prediction.image_id == Image.id, Prediction.flag != _flag_of(job))
    images("have a flag that does not follow from their probability", wrong_flag)
    without_digest = exists().where(Prediction.image_id == Image.id, func.length(Prediction.image_sha256) != 64)
    images("have a prediction without a SHA-256", without_digest)
    in_done_chunk = exists().where(Chunk.id == Image.chunk_id, Chunk.status == ChunkStatus.DONE)
    images("are waiting in a chunk that is done", Image.status == ImageStatus.WAITING, in_done_chunk)

    held = select(func.count()).where(Image.chunk_id == Chunk.id).correlate(Chunk).scalar_subquery()
    wrong_size = _ids(connection, select(Chunk.id).where(Chunk.job_id == job_id, Chunk.size != held))
    found += [f"chunk {chunk} does not hold the number of images that it was made with" for chunk in wrong_size]
    if job.status is JobStatus.FINISHED:
        open_ = _ids(connection, select(Chunk.id).where(Chunk.job_id == job_id, Chunk.status != ChunkStatus.DONE))
        found += [f"chunk {chunk} of a finished job is not done" for chunk in open_]
    return found + _differences_from_audit_log(connection, job)


def _flag_of(job: JobView) -> ColumnElement[TriageFlag]:
    return case(
        (Prediction.probability >= job.threshold, TriageFlag.HIGH_RISK),
        (Prediction.probability >= job.borderline_threshold, TriageFlag.BORDERLINE),
        else_=TriageFlag.LOWER_PRIORITY,
    )


def _differences_from_audit_log(connection: Connection, job: JobView) -> list[str]:
    """Whether the job holds as many images as the audit log says were submitted. Deleted rows show nowhere else."""
    present = count_statuses(connection, job.id).submitted
    in_chunks = connection.execute(select(func.sum(Chunk.size)).where(Chunk.job_id == job.id)).scalar_one() or 0
    found = [] if present == in_chunks else [f"the chunks were made with {in_chunks} images, the job holds {present}"]
    submissions = [entry for entry in entries_of(connection, job.id) if entry.action == AuditAction.SUBMITTED]
    for entry in submissions:
        submitted = json.loads(entry.detail)["images"]
        if submitted != present:
            found.append(f"the audit log says that {submitted:,} images were submitted, the job holds {present:,}")
    # A job that is cancelled during its submission was never submitted.
    if not submissions and job.status not in (JobStatus.SUBMITTING, JobStatus.CANCELLED):
        found.append("the audit log has no entry for its submission")
    return found


def _ids(connection: Connection, query: Select[int]) -> list[int]:
    return list(connection.scalars(query.limit(_NAMED)))
