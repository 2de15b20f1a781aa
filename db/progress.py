"""Progress of a job: counts of its images, and whether a worker holds a lease on one of its chunks."""

from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection, case, exists, func, select

from db.models import AuditEntry, Chunk, Image, Job, Prediction
from db.status import AuditAction, ChunkStatus, FailureCode, ImageStatus, TriageFlag
from db.types import db_now

#: Actions that stop the work on a job, and actions that start it again.
_STOPS = (AuditAction.PAUSED, AuditAction.FINISHED)
_STARTS = (AuditAction.RESUMED, AuditAction.RETRIED)


@dataclass(frozen=True, kw_only=True)
class JobCounts:
    """Counts of a job's images by outcome."""

    by_status: dict[ImageStatus, int]
    by_flag: dict[TriageFlag, int] = field(default_factory=dict)
    by_failure: dict[FailureCode, int] = field(default_factory=dict)
    #: Images scored by reusing an earlier inference of the same bytes. `count_statuses` does not count them.
    reused: int = 0
    #: When the newest outcome was written.
    last_completed_at: datetime | None = None
    #: Seconds, from the first claim to the newest outcome, in which the job was paused, or finished until a retry.
    paused_seconds: float = 0.0

    @property
    def submitted(self) -> int:
        """Images of the job."""
        return sum(self.by_status.values())

    @property
    def completed(self) -> int:
        """Images that are scored, ungradable or failed."""
        return self.submitted - self.by_status.get(ImageStatus.WAITING, 0)


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
        last_completed_at=statuses.last_completed_at,
        paused_seconds=statuses.paused_seconds,
        by_status=statuses.by_status,
        by_flag={flag: count for flag, count, _ in by_flag},
        reused=sum(int(reused) for *_, reused in by_flag),
        by_failure={code: count for code, count in connection.execute(failures) if code is not None},
    )


def count_statuses(connection: Connection, job_id: int) -> JobCounts:
    """Count by status alone. A progress bar calls it once a second."""
    rows = connection.execute(
        select(Image.status, func.count(), func.max(Image.completed_at))
        .where(Image.job_id == job_id)
        .group_by(Image.status)
    ).all()
    last_completed_at = max((ended for _, _, ended in rows if ended is not None), default=None)
    return JobCounts(
        by_status={status: count for status, count, _ in rows},
        last_completed_at=last_completed_at,
        paused_seconds=_seconds_paused(connection, job_id, last_completed_at) if last_completed_at is not None else 0.0,
    )


def _seconds_paused(connection: Connection, job_id: int, until: datetime) -> float:
    entries = connection.execute(
        select(AuditEntry.action, AuditEntry.at, Job.started_at)
        .join(Job, Job.id == AuditEntry.job_id)
        .where(AuditEntry.job_id == job_id, AuditEntry.action.in_((*_STOPS, *_STARTS)), AuditEntry.at <= until)
        .order_by(AuditEntry.number)
    )
    seconds, since = 0.0, None
    for action, at, started in entries:
        if action in _STOPS:
            since = since or at
        elif since is not None and started is not None:
            # A job may be paused before anybody begins with it.
            seconds, since = seconds + max((at - max(since, started)).total_seconds(), 0.0), None
    return seconds


def has_live_lease(connection: Connection, job_id: int) -> bool:
    """Whether a worker holds a lease on a chunk of the job."""
    lease = exists().where(
        Chunk.job_id == job_id, Chunk.status == ChunkStatus.LEASED, Chunk.lease_expires_at >= db_now()
    )
    return bool(connection.execute(select(lease)).scalar_one())
