"""Jobs: seen, counted from their rows, and finished when every chunk is done."""

from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection, case, exists, func, select, update

from db.audit import append_entry
from db.clock import db_now
from db.models import AuditEntry, Chunk, Image, Job, ModelBundle, Prediction
from db.status import AuditAction, ChunkStatus, FailureCode, ImageStatus, JobStatus, TriageFlag
from db.submission import submission_expired

#: Statuses in which a worker may claim a chunk of the job.
CLAIMABLE = (JobStatus.SUBMITTING, JobStatus.QUEUED, JobStatus.RUNNING)
#: Statuses in which the last closed chunk finishes the job.
FINISHABLE = (JobStatus.QUEUED, JobStatus.RUNNING)
#: What brings a job to rest, and what lets it go on: in between nobody could work on it.
_RESTS = (AuditAction.PAUSED, AuditAction.FINISHED)
_GOES_ON = (AuditAction.RESUMED, AuditAction.RETRIED)


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
    #: Whether the process that was taking it in has died.
    abandoned: bool
    submitted_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class JobCounts:
    """How the images of a job stand, counted from their rows."""

    by_status: dict[ImageStatus, int]
    by_flag: dict[TriageFlag, int] = field(default_factory=dict)
    by_failure: dict[FailureCode, int] = field(default_factory=dict)
    #: Scored by taking over what the same bytes had been given before; not counted by `count_statuses`.
    reused: int = 0
    #: When the last image ended.
    last_end: datetime | None = None
    #: Seconds between the first claim and that in which the job was paused, or finished until a retry.
    rested: float = 0.0

    @property
    def submitted(self) -> int:
        """Images of the job."""
        return sum(self.by_status.values())

    @property
    def ended(self) -> int:
        """Images that are scored, ungradable or failed."""
        return self.submitted - self.by_status.get(ImageStatus.WAITING, 0)


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


@dataclass(frozen=True, kw_only=True)
class BundleWork:
    """A bundle that work is open under, and the jobs, oldest first."""

    sha256: str
    name: str
    version: str
    jobs: list[int]


def open_work(connection: Connection) -> list[BundleWork]:
    """The bundles of the jobs that have a chunk which a worker may claim and has not done."""
    undone = exists().where(Chunk.job_id == Job.id, Chunk.status != ChunkStatus.DONE)
    rows = connection.execute(
        select(ModelBundle.sha256, ModelBundle.name, ModelBundle.version, Job.id)
        .join(Job, Job.bundle_id == ModelBundle.id)
        .where(Job.status.in_(CLAIMABLE), undone)
        .order_by(ModelBundle.id, Job.id)
    )
    found: dict[str, BundleWork] = {}
    for sha256, name, version, job_id in rows:
        work = found.setdefault(sha256, BundleWork(sha256=sha256, name=name, version=version, jobs=[]))
        work.jobs.append(job_id)
    return list(found.values())


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
            submission_expired().label("abandoned"),
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
    # SQLite has no booleans, only 0 and 1.
    return [JobView(**{**row, "abandoned": bool(row["abandoned"])}) for row in connection.execute(query).mappings()]


def count_images(connection: Connection, job_id: int) -> JobCounts:
    """Count the images of a job by status, triage flag and failure code."""
    failures = (
        select(Image.failure_code, func.count())
        .where(Image.job_id == job_id, Image.status == ImageStatus.FAILED)
        .group_by(Image.failure_code)
    )
    flags = (
        select(Prediction.flag, func.count(), func.sum(case((Prediction.reused, 1), else_=0)))
        .join(Image, Image.id == Prediction.image_id)
        .where(Image.job_id == job_id)
        .group_by(Prediction.flag)
    )
    statuses = count_statuses(connection, job_id)
    by_flag = connection.execute(flags).all()
    return JobCounts(
        last_end=statuses.last_end,
        rested=statuses.rested,
        by_status=statuses.by_status,
        by_flag={flag: count for flag, count, _ in by_flag},
        reused=sum(int(reused) for *_, reused in by_flag),
        by_failure={code: count for code, count in connection.execute(failures) if code is not None},
    )


def count_statuses(connection: Connection, job_id: int) -> JobCounts:
    """Count by status alone: what a progress bar asks for once a second."""
    rows = connection.execute(
        select(Image.status, func.count(), func.max(Image.ended_at))
        .where(Image.job_id == job_id)
        .group_by(Image.status)
    ).all()
    last_end = max((ended for _, _, ended in rows if ended is not None), default=None)
    return JobCounts(
        by_status={status: count for status, count, _ in rows},
        last_end=last_end,
        rested=_seconds_rested(connection, job_id, last_end) if last_end is not None else 0.0,
    )


def _seconds_rested(connection: Connection, job_id: int, until: datetime) -> float:
    entries = connection.execute(
        select(AuditEntry.action, AuditEntry.at, Job.started_at)
        .join(Job, Job.id == AuditEntry.job_id)
        .where(AuditEntry.job_id == job_id, AuditEntry.action.in_((*_RESTS, *_GOES_ON)), AuditEntry.at <= until)
        .order_by(AuditEntry.number)
    )
    seconds, since = 0.0, None
    for action, at, started in entries:
        if action in _RESTS:
            since = since or at
        elif since is not None and started is not None:
            # A job may be paused before anybody begins with it.
            seconds, since = seconds + max((at - max(since, started)).total_seconds(), 0.0), None
    return seconds


def has_live_lease(connection: Connection, job_id: int) -> bool:
    """Whether a worker has a chunk of the job in hand."""
    lease = exists().where(
        Chunk.job_id == job_id, Chunk.status == ChunkStatus.LEASED, Chunk.lease_expires_at >= db_now()
    )
    return bool(connection.execute(select(lease)).scalar_one())
