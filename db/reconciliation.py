"""The books of a job: does every image have exactly one end, and does every end have what belongs to it?"""

import json

from sqlalchemy import ColumnElement, Connection, Select, case, exists, func, select

from db.audit import entries_of
from db.jobs import JobView, view_jobs
from db.models import Chunk, Image, Prediction
from db.progress import count_statuses
from db.status import AuditAction, ChunkStatus, ImageStatus, JobStatus, TriageFlag

#: Image numbers named in a fault; the rest are counted.
_NAMED = 10


def faults_of(connection: Connection, job_id: int) -> list[str]:
    """Audit a job's rows.

    Args:
        job_id: any job.

    Returns:
        A sentence per fault, with image numbers; none when the books are right. A job that still runs has no fault for
        its waiting images.
    """
    (job,) = view_jobs(connection, job_id=job_id)
    faults: list[str] = []
    if job.abandoned:
        faults.append("its submission was broken off: images of its source may be in no job. `dermq submit` it again")

    def images(what: str, *conditions: ColumnElement[bool]) -> None:
        query = select(Image.id).where(Image.job_id == job_id, *conditions).order_by(Image.id)
        if found := list(connection.scalars(query)):
            rest = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
            faults.append(f"{len(found)} images {what}: {', '.join(map(str, found[:_NAMED]))}{rest}")

    has_prediction = exists().where(Prediction.image_id == Image.id)
    if job.status is JobStatus.FINISHED:
        images("of a finished job have not ended", Image.status == ImageStatus.WAITING)
    images("are scored without a prediction", Image.status == ImageStatus.SCORED, ~has_prediction)
    images("have a prediction without being scored", Image.status != ImageStatus.SCORED, has_prediction)
    images("failed without a code", Image.status == ImageStatus.FAILED, Image.failure_code.is_(None))
    images("are ungradable without a reason", Image.status == ImageStatus.UNGRADABLE, Image.ungradable_reason.is_(None))
    images(
        "are in a chunk of another job",
        exists().where(Chunk.id == Image.chunk_id, Chunk.job_id != job_id),
    )
    foreign = exists().where(Prediction.image_id == Image.id, Prediction.bundle_id != job.bundle_id)
    images("were scored under another bundle than the job's", foreign)
    images("ended without a time", Image.status != ImageStatus.WAITING, Image.ended_at.is_(None))
    images("are scored and have a failure's code", Image.status == ImageStatus.SCORED, Image.failure_code.is_not(None))
    wrong_flag = exists().where(Prediction.image_id == Image.id, Prediction.flag != _flag_of(job))
    images("have another flag than their probability gives", wrong_flag)
    undigested = exists().where(Prediction.image_id == Image.id, func.length(Prediction.image_sha256) != 64)
    images("have a prediction without a SHA-256", undigested)
    done_early = exists().where(Chunk.id == Image.chunk_id, Chunk.status == ChunkStatus.DONE)
    images("wait in a chunk that is done", Image.status == ImageStatus.WAITING, done_early)

    held = select(func.count()).where(Image.chunk_id == Chunk.id).correlate(Chunk).scalar_subquery()
    wrong = _numbers(connection, select(Chunk.id).where(Chunk.job_id == job_id, Chunk.size != held))
    faults += [f"chunk {chunk} does not hold as many images as were put into it" for chunk in wrong]
    if job.status is JobStatus.FINISHED:
        undone = _numbers(connection, select(Chunk.id).where(Chunk.job_id == job_id, Chunk.status != ChunkStatus.DONE))
        faults += [f"chunk {chunk} of a finished job is not done" for chunk in undone]
    return faults + _not_as_recorded(connection, job)


def _flag_of(job: JobView) -> ColumnElement[TriageFlag]:
    return case(
        (Prediction.probability >= job.threshold, TriageFlag.HIGH_RISK),
        (Prediction.probability >= job.borderline_from, TriageFlag.BORDERLINE),
        else_=TriageFlag.LOW_RISK,
    )


def _not_as_recorded(connection: Connection, job: JobView) -> list[str]:
    """Whether as many images are there as the audit log says were submitted; rows that are gone count nowhere else."""
    there = count_statuses(connection, job.id).submitted
    in_chunks = connection.execute(select(func.sum(Chunk.size)).where(Chunk.job_id == job.id)).scalar_one() or 0
    faults = [] if there == in_chunks else [f"{in_chunks} images are in chunks, {there} are there"]
    said = [entry for entry in entries_of(connection, job.id) if entry.action == AuditAction.SUBMITTED]
    for entry in said:
        submitted = json.loads(entry.detail)["images"]
        if submitted != there:
            faults.append(f"{submitted:,} images were submitted, as the audit log has it; {there:,} are there")
    # A job that is given up while it is taken in was never submitted.
    if not said and job.status not in (JobStatus.SUBMITTING, JobStatus.CANCELLED):
        faults.append("no entry of the audit log says that it was submitted")
    return faults


def orphans(connection: Connection) -> list[str]:
    """Rows that belong to nothing, whatever the job: predictions without an image, images without a chunk."""
    lonely = _numbers(connection, select(Prediction.id).where(~exists().where(Image.id == Prediction.image_id)))
    lost = _numbers(connection, select(Image.id).where(~exists().where(Chunk.id == Image.chunk_id)))
    return [f"prediction {number} has no image" for number in lonely] + [
        f"image {number} has no chunk" for number in lost
    ]


def _numbers(connection: Connection, query: Select[int]) -> list[int]:
    return list(connection.scalars(query.limit(_NAMED)))
