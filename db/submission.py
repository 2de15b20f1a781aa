"""Recording a submission: begin a job, add batches of images, end it; or resume one whose submitter died.

A submitter holds its job by a lease, as a worker holds a chunk. Every batch is written under the lease, so that two
submitters never fill one job.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, func, insert, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from db.audit import find_entry
from db.deletion import mark_deleting
from db.models import AuditEntry, Chunk, Image, Job, ModelBundle
from db.status import AuditAction, ChunkStatus, FailureCode, ImageStatus, JobStatus
from db.totals import group_for_chunk
from db.types import db_now

#: Key of PostgreSQL's advisory lock for beginning a submission. SQLite has one writer anyway.
_ADVISORY_LOCK = 0x6465726D73
#: Paths in one query: PostgreSQL takes 65,535 bound values, SQLite 32,766.
_PATHS_PER_QUERY = 10_000


class SubmissionLostError(Exception):
    """This submitter has lost the job: it was cancelled, or another submitter has resumed it."""


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A job to begin."""

    root: str
    manifest: str | None
    urgent: bool
    bundle_id: int
    policy: str
    threshold: float
    borderline_threshold: float
    force: bool = False
    name: str | None = None
    submitted_by: str | None = None
    hours: str | None = None
    resting: bool = False


@dataclass(frozen=True, kw_only=True)
class NewImage:
    """An image to record. ``path`` is relative to the job's root; sizes are in bytes, times in nanoseconds.

    ``failure`` is known before any worker reads it: the code and the reason with which it will fail.
    """

    path: str
    size_bytes: int | None
    mtime_ns: int | None
    lesion_id: str | None = None
    patient_ref: str | None = None
    age: float | None = None
    sex: str | None = None
    site: str | None = None
    study_uid: str | None = None
    series_uid: str | None = None
    instance_uid: str | None = None
    failure: tuple[FailureCode, str] | None = None


@dataclass(frozen=True, kw_only=True)
class OpenSubmission:
    """A job whose submission has begun and not ended."""

    job_id: int
    submitter: str | None
    #: Whether the submitter's lease has expired.
    expired: bool


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """Images of a job; those with a path that leads out of the root; other ones whose file was not found."""

    images: int
    outside_root: int
    not_found: int


def record_bundle(connection: Connection, *, sha256: str, name: str, version: str) -> int:
    """Row id of a bundle. Its first use records it."""
    dialect_insert = sqlite_insert if connection.dialect.name == "sqlite" else postgresql_insert
    connection.execute(
        dialect_insert(ModelBundle)
        .values(sha256=sha256, name=name, version=version, recorded_at=db_now())
        .on_conflict_do_nothing(index_elements=["sha256"])
    )
    return connection.execute(select(ModelBundle.id).where(ModelBundle.sha256 == sha256)).scalar_one()


def begin_submission(connection: Connection, job: NewJob, submitter: str, lease_seconds: float) -> int:
    """Insert a job with status ``submitting``. A second call by the same submitter returns the same job.

    Args:
        job: what to score and how.
        submitter: unique to this submission.
        lease_seconds: length of the submitter's lease without a renewal.

    Returns:
        The job's id.
    """
    # A transaction runs again when the reply to its commit was lost: the job may exist already.
    begun = connection.execute(select(Job.id).where(Job.submitter == submitter)).scalar_one_or_none()
    if begun is not None:
        return begun
    return connection.execute(
        insert(Job)
        .values(
            **_unused_number(connection),
            status=JobStatus.SUBMITTING,
            root=job.root,
            manifest=job.manifest,
            urgent=job.urgent,
            bundle_id=job.bundle_id,
            policy=job.policy,
            threshold=job.threshold,
            borderline_threshold=job.borderline_threshold,
            force=job.force,
            name=job.name,
            submitted_by=job.submitted_by,
            hours=job.hours,
            resting=job.resting,
            submitter=submitter,
            submitter_expires_at=db_now(lease_seconds),
            submitted_at=db_now(),
        )
        .returning(Job.id)
    ).scalar_one()


def _unused_number(connection: Connection) -> dict[str, int]:
    """The next job's id on SQLite, so that no job gets the id of a deleted one, which the audit log still names.

    PostgreSQL never reuses an id. SQLite would take the greatest id present plus one.
    """
    if connection.dialect.name != "sqlite":
        return {}
    known = [connection.execute(select(func.max(column))).scalar_one() or 0 for column in (Job.id, AuditEntry.job_id)]
    return {"id": max(known) + 1}


def open_submissions(connection: Connection, job: NewJob) -> list[OpenSubmission]:
    """Open submissions of the same source with the same bundle, policy, urgency and force, oldest first.

    Call it in the transaction that resumes one of them or begins a new job: until it ends, nobody else begins one.
    """
    same = (
        Job.root == job.root,
        Job.manifest == job.manifest if job.manifest is not None else Job.manifest.is_(None),
        Job.bundle_id == job.bundle_id,
        Job.policy == job.policy,
        Job.threshold == job.threshold,
        Job.borderline_threshold == job.borderline_threshold,
        Job.urgent == job.urgent,
        Job.force == job.force,
    )
    if connection.dialect.name == "postgresql":
        # Held until the transaction ends, so that of two concurrent submissions the second finds the first.
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
    expired = submission_expired().label("expired")
    rows = connection.execute(
        select(Job.id.label("job_id"), Job.submitter, expired)
        .where(Job.status == JobStatus.SUBMITTING, *same)
        .order_by(Job.id)
    ).mappings()
    return [OpenSubmission(**{**row, "expired": bool(row["expired"])}) for row in rows]


def submission_expired() -> ColumnElement[bool]:
    """Condition: the job's submission has not ended, and its submitter's lease has expired."""
    return and_(
        Job.status == JobStatus.SUBMITTING,
        or_(Job.submitter_expires_at.is_(None), Job.submitter_expires_at < db_now()),
    )


def take_submission(connection: Connection, found: OpenSubmission, submitter: str, lease_seconds: float) -> bool:
    """Resume the submission of a dead submitter. Returns False when another submitter was faster."""
    before = Job.submitter == found.submitter if found.submitter is not None else Job.submitter.is_(None)
    taken = connection.execute(
        update(Job)
        .where(Job.id == found.job_id, Job.status == JobStatus.SUBMITTING, or_(before, Job.submitter == submitter))
        .values(submitter=submitter, submitter_expires_at=db_now(lease_seconds))
    )
    return taken.rowcount == 1


def renew_submission(connection: Connection, job_id: int, submitter: str, lease_seconds: float) -> None:
    """Check that the lease holds and extend it. It is the first statement of every transaction that adds images.

    Raises:
        SubmissionLostError: the job was cancelled, or another submitter has resumed it.
    """
    renewed = connection.execute(
        update(Job).where(*_held(job_id, submitter)).values(submitter_expires_at=db_now(lease_seconds))
    )
    if renewed.rowcount != 1:
        raise SubmissionLostError(f"{submitter} has lost the submission of job {job_id}")


def release_submission(connection: Connection, job_id: int, submitter: str) -> None:
    """Let the submitter's lease expire now. Does nothing when another submitter has the job."""
    connection.execute(update(Job).where(*_held(job_id, submitter)).values(submitter_expires_at=db_now(-1.0)))


def jobs_of_same_source(connection: Connection, job_id: int) -> list[int]:
    """Other jobs with the same root and manifest that were not cancelled, oldest first."""
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
    """Those of the paths that the job holds already."""
    found: set[str] = set()
    for start in range(0, len(paths), _PATHS_PER_QUERY):
        part = paths[start : start + _PATHS_PER_QUERY]
        found.update(connection.scalars(select(Image.path).where(Image.job_id == job_id, Image.path.in_(part))))
    return found


def add_chunk(connection: Connection, job_id: int, images: Sequence[NewImage]) -> int:
    """Insert a chunk with its images and mark it as hinted. The caller sends the hint after the commit.

    Args:
        images: their paths are unique and not in the job yet.

    Returns:
        The chunk's id.
    """
    chunk_id = connection.execute(
        insert(Chunk)
        .values(
            job_id=job_id,
            group_id=group_for_chunk(connection, job_id, len(images)),
            status=ChunkStatus.WAITING,
            size=len(images),
            attempt=0,
            hinted_at=db_now(),
        )
        .returning(Chunk.id)
    ).scalar_one()
    rows = [
        {
            "job_id": job_id,
            "chunk_id": chunk_id,
            "status": ImageStatus.WAITING,
            "isolation_starts": 0,
            "path": image.path,
            "size_bytes": image.size_bytes,
            "mtime_ns": image.mtime_ns,
            "lesion_id": image.lesion_id,
            "patient_ref": image.patient_ref,
            "age": image.age,
            "sex": image.sex,
            "site": image.site,
            "study_uid": image.study_uid,
            "series_uid": image.series_uid,
            "instance_uid": image.instance_uid,
            "failure_code": image.failure[0] if image.failure else None,
            "reason": image.failure[1] if image.failure else None,
        }
        for image in images
    ]
    connection.execute(insert(Image), rows)
    return chunk_id


def count_recorded(connection: Connection, job_id: int) -> Recorded:
    """Count the images of a job. It reads all of them, so call it in no transaction that writes."""
    # Recorded paths inside the root are relative and without "..".
    outside = or_(Image.path.startswith("/"), Image.path.startswith("../"))
    images, outside_root, not_found = connection.execute(
        select(
            func.count(), func.count().filter(outside), func.count().filter(~outside, Image.size_bytes.is_(None))
        ).where(Image.job_id == job_id)
    ).one()
    return Recorded(images=images, outside_root=outside_root, not_found=not_found)


def end_submission(connection: Connection, job_id: int, submitter: str) -> bool:
    """End a submission: the job becomes ``running`` when a worker has claimed a chunk, else ``queued``.

    Returns:
        Whether this call ended the submission. False when an earlier call did.

    Raises:
        SubmissionLostError: the job was cancelled, or another submitter has resumed it.
    """
    held = _held(job_id, submitter)
    ended = {"submitter": None, "submitter_expires_at": None}
    begun = Job.started_at.is_not(None)
    running = connection.execute(update(Job).where(*held, begun).values(status=JobStatus.RUNNING, **ended))
    # Without the condition: a worker may claim between the two statements, and then neither would match.
    queued = connection.execute(update(Job).where(*held).values(status=JobStatus.QUEUED, **ended))
    if running.rowcount + queued.rowcount == 1:
        return True
    status = connection.execute(select(Job.status).where(Job.id == job_id)).scalar_one_or_none()
    if status in (None, JobStatus.SUBMITTING, JobStatus.CANCELLED):
        raise SubmissionLostError(f"{submitter} has lost the submission of job {job_id}")
    return False


def record_passed_over(connection: Connection, job_id: int, passed_over: Mapping[str, int]) -> None:
    """Keep with the job what its source holds and was not submitted, by kind."""
    connection.execute(update(Job).where(Job.id == job_id).values(passed_over=dict(passed_over) or None))


def withdraw_job(connection: Connection, job_id: int, submitter: str, *, actor: str) -> bool:
    """Mark a job as being deleted whose submission was interrupted, if no worker has claimed a chunk.

    Returns:
        Whether it was marked. False when a worker has claimed a chunk, or this submitter has lost the job.
    """
    if find_entry(connection, job_id, AuditAction.DELETED, submitter) is not None:
        return True
    held = select(Job.id).where(*_held(job_id, submitter), Job.started_at.is_(None)).with_for_update()
    if connection.execute(held).one_or_none() is None:
        return False
    why = "the submission was interrupted"
    mark_deleting(connection, job_id, actor=actor, request=submitter, why=why)
    return True


def _held(job_id: int, submitter: str) -> tuple[ColumnElement[bool], ...]:
    return Job.id == job_id, Job.status == JobStatus.SUBMITTING, Job.submitter == submitter
