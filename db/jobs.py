"""Jobs: made by intake in batches, counted from their rows, finished when every chunk is done."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection, and_, delete, exists, func, insert, or_, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from db.audit import append_entry
from db.clock import db_now
from db.models import Chunk, Image, Job, ModelBundle, Prediction
from db.status import AuditAction, ChunkStatus, FailureCode, ImageStatus, JobStatus, TriageFlag

#: Statuses in which a worker may claim a chunk of the job.
CLAIMABLE = (JobStatus.SUBMITTING, JobStatus.QUEUED, JobStatus.RUNNING)
#: Statuses in which the last closed chunk finishes the job.
FINISHABLE = (JobStatus.QUEUED, JobStatus.RUNNING)


#: Paths in one query: PostgreSQL takes 65,535 bound values, SQLite 32,766.
_PATHS_PER_QUERY = 10_000


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """What intake knows of a job before its first image."""

    root: str
    manifest: str | None
    urgent: bool
    bundle_id: int
    policy: str
    threshold: float
    borderline_from: float
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class NewImage:
    """An image as intake found it. ``path`` is relative to the job's root; sizes are bytes, times nanoseconds."""

    path: str
    size_bytes: int | None
    modified_ns: int | None
    lesion_id: str | None = None
    patient_ref: str | None = None
    age: float | None = None
    sex: str | None = None
    site: str | None = None


@dataclass(frozen=True, kw_only=True)
class JobView:
    """A job as operators see it."""

    id: int
    status: JobStatus
    urgent: bool
    root: str
    manifest: str | None
    bundle_name: str
    bundle_version: str
    bundle_sha256: str
    bundle_id: int
    policy: str
    threshold: float
    borderline_from: float
    submitted_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class JobCounts:
    """How the images of a job stand, counted from their rows."""

    by_status: dict[ImageStatus, int]
    by_flag: dict[TriageFlag, int] = field(default_factory=dict)
    by_failure: dict[FailureCode, int] = field(default_factory=dict)
    #: When the last image ended.
    last_end: datetime | None = None

    @property
    def submitted(self) -> int:
        """Images of the job."""
        return sum(self.by_status.values())

    @property
    def ended(self) -> int:
        """Images that are scored, ungradable or failed."""
        return self.submitted - self.by_status.get(ImageStatus.WAITING, 0)


def record_bundle(connection: Connection, *, sha256: str, name: str, version: str) -> int:
    """Row id of a bundle, recorded at its first use."""
    dialect_insert = sqlite_insert if connection.dialect.name == "sqlite" else postgresql_insert
    connection.execute(
        dialect_insert(ModelBundle)
        .values(sha256=sha256, name=name, version=version, recorded_at=db_now())
        .on_conflict_do_nothing(index_elements=["sha256"])
    )
    return connection.execute(select(ModelBundle.id).where(ModelBundle.sha256 == sha256)).scalar_one()


def create_job(connection: Connection, job: NewJob) -> int:
    """Insert a job with status ``submitting``.

    Returns:
        The job's id.
    """
    return connection.execute(
        insert(Job)
        .values(
            status=JobStatus.SUBMITTING,
            root=job.root,
            manifest=job.manifest,
            urgent=job.urgent,
            bundle_id=job.bundle_id,
            policy=job.policy,
            threshold=job.threshold,
            borderline_from=job.borderline_from,
            force=job.force,
            submitted_at=db_now(),
        )
        .returning(Job.id)
    ).scalar_one()


def jobs_of_same_source(connection: Connection, job_id: int) -> list[int]:
    """Other jobs of the same root and manifest that were not cancelled, oldest first."""
    this = select(Job.root, Job.manifest).where(Job.id == job_id).subquery()
    same_manifest = or_(Job.manifest == this.c.manifest, and_(Job.manifest.is_(None), this.c.manifest.is_(None)))
    query = (
        select(Job.id)
        .join(this, and_(Job.root == this.c.root, same_manifest))
        .where(Job.id != job_id, Job.status != JobStatus.CANCELLED)
        .order_by(Job.id)
    )
    return list(connection.scalars(query))


def known_paths(connection: Connection, job_id: int, paths: Sequence[str]) -> set[str]:
    """Which of the paths the job holds already."""
    found: set[str] = set()
    for start in range(0, len(paths), _PATHS_PER_QUERY):
        part = paths[start : start + _PATHS_PER_QUERY]
        found.update(connection.scalars(select(Image.path).where(Image.job_id == job_id, Image.path.in_(part))))
    return found


def add_chunk(connection: Connection, job_id: int, images: Sequence[NewImage]) -> int:
    """Insert a chunk with its images, marked as hinted: the caller sends the hint once this is committed.

    Args:
        images: with paths that the job does not hold yet, each once.

    Returns:
        The chunk's id.
    """
    chunk_id = connection.execute(
        insert(Chunk)
        .values(job_id=job_id, status=ChunkStatus.WAITING, size=len(images), attempt=0, hinted_at=db_now())
        .returning(Chunk.id)
    ).scalar_one()
    rows = [
        {
            "job_id": job_id,
            "chunk_id": chunk_id,
            "status": ImageStatus.WAITING,
            "careful_starts": 0,
            "path": image.path,
            "size_bytes": image.size_bytes,
            "modified_ns": image.modified_ns,
            "lesion_id": image.lesion_id,
            "patient_ref": image.patient_ref,
            "age": image.age,
            "sex": image.sex,
            "site": image.site,
        }
        for image in images
    ]
    connection.execute(insert(Image), rows)
    return chunk_id


def end_submission(connection: Connection, job_id: int) -> bool:
    """Everything is recorded: the job is ``running`` when a worker has begun, else ``queued``.

    Returns:
        Whether this call ended the submission; false when an earlier one did.
    """
    submitting = (Job.id == job_id, Job.status == JobStatus.SUBMITTING)
    begun = exists().where(Chunk.job_id == job_id, Chunk.attempt > 0)
    running = connection.execute(update(Job).where(*submitting, begun).values(status=JobStatus.RUNNING))
    # Without a condition: a worker may begin between the two statements, and then neither would match.
    queued = connection.execute(update(Job).where(*submitting).values(status=JobStatus.QUEUED))
    return running.rowcount + queued.rowcount == 1


def withdraw_job(connection: Connection, job_id: int) -> None:
    """Remove a job whose submission failed, with everything it holds."""
    connection.execute(delete(Job).where(Job.id == job_id, Job.status == JobStatus.SUBMITTING))


def finish_job_if_done(connection: Connection, job_id: int) -> bool:
    """Finish a job when no chunk is left; call it in a transaction of its own, after the last chunk's.

    Two workers that close the last two chunks at once do not see each other's uncommitted rows; each asking again after
    its own commit, at least one sees both.

    Returns:
        Whether this call finished the job.
    """
    # The lock first: whoever reopens chunks holds it too, and the update below then sees what they committed.
    connection.execute(select(Job.id).where(Job.id == job_id).with_for_update(key_share=True))
    open_chunk = exists().where(Chunk.job_id == job_id, Chunk.status != ChunkStatus.DONE)
    finished = connection.execute(
        update(Job)
        .where(Job.id == job_id, Job.status.in_(FINISHABLE), ~open_chunk)
        .values(status=JobStatus.FINISHED, finished_at=db_now())
    )
    if finished.rowcount != 1:
        return False
    append_entry(connection, actor="dermq", action=AuditAction.FINISHED, job_id=job_id)
    return True


def unfinished_jobs(connection: Connection) -> list[int]:
    """Jobs that could be finished, for the sweeper to ask `finish_job_if_done` of each."""
    return list(connection.scalars(select(Job.id).where(Job.status.in_(FINISHABLE)).order_by(Job.id)))


def view_jobs(connection: Connection, *, job_id: int | None = None, limit: int = 20) -> list[JobView]:
    """Jobs, newest first; or the one asked for."""
    query = (
        select(
            Job.id,
            Job.status,
            Job.urgent,
            Job.root,
            Job.manifest,
            ModelBundle.name.label("bundle_name"),
            ModelBundle.version.label("bundle_version"),
            ModelBundle.sha256.label("bundle_sha256"),
            Job.bundle_id,
            Job.policy,
            Job.threshold,
            Job.borderline_from,
            Job.submitted_at,
            Job.started_at,
            Job.finished_at,
        )
        .join(ModelBundle, ModelBundle.id == Job.bundle_id)
        .order_by(Job.id.desc())
        .limit(limit)
    )
    if job_id is not None:
        query = query.where(Job.id == job_id)
    return [JobView(**row) for row in connection.execute(query).mappings()]


def count_images(connection: Connection, job_id: int) -> JobCounts:
    """Count the images of a job by status, triage flag and failure code."""
    failures = (
        select(Image.failure_code, func.count())
        .where(Image.job_id == job_id, Image.status == ImageStatus.FAILED)
        .group_by(Image.failure_code)
    )
    flags = (
        select(Prediction.flag, func.count())
        .join(Image, Image.id == Prediction.image_id)
        .where(Image.job_id == job_id)
        .group_by(Prediction.flag)
    )
    statuses = count_statuses(connection, job_id)
    return JobCounts(
        last_end=statuses.last_end,
        by_status=statuses.by_status,
        by_flag=dict(connection.execute(flags).all()),
        by_failure={code: count for code, count in connection.execute(failures) if code is not None},
    )


def count_statuses(connection: Connection, job_id: int) -> JobCounts:
    """Count by status alone: what a progress bar asks for once a second."""
    rows = connection.execute(
        select(Image.status, func.count(), func.max(Image.ended_at))
        .where(Image.job_id == job_id)
        .group_by(Image.status)
    ).all()
    ends = [ended for _, _, ended in rows if ended is not None]
    return JobCounts(by_status={status: count for status, count, _ in rows}, last_end=max(ends, default=None))


def has_live_lease(connection: Connection, job_id: int) -> bool:
    """Whether a worker has a chunk of the job in hand."""
    lease = exists().where(
        Chunk.job_id == job_id, Chunk.status == ChunkStatus.LEASED, Chunk.lease_expires_at >= db_now()
    )
    return bool(connection.execute(select(lease)).scalar_one())
