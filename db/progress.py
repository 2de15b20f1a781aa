"""Progress of jobs: counts of their images, and whether a worker holds a lease on one of their chunks."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select

from db.jobs import CLAIMABLE
from db.models import AuditEntry, Chunk, Image, Job
from db.status import AuditAction, ChunkStatus, FailureCode, ImageStatus, TriageFlag, UngradableReason
from db.totals import JobTotals, totals_of_jobs
from db.types import db_now

#: Actions that stop the work on a job, and actions that start it again.
_STOPS = (AuditAction.PAUSED, AuditAction.FINISHED)
_STARTS = (AuditAction.RESUMED, AuditAction.RETRIED)


@dataclass(frozen=True, kw_only=True)
class JobCounts:
    """Counts of a job's images by outcome."""

    by_status: dict[ImageStatus, int]
    by_flag: dict[TriageFlag, int] = field(default_factory=dict)
    #: `count_images` alone fills these two.
    by_failure: dict[FailureCode, int] = field(default_factory=dict)
    by_ungradable_reason: dict[UngradableReason, int] = field(default_factory=dict)
    #: Images scored by reusing an earlier inference of the same bytes.
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
    """All counts of a job. They come from totals, so they cost the same for a job of any size."""
    return _count(connection, [job_id], details=True)[job_id]


def count_jobs(connection: Connection, job_ids: Collection[int]) -> dict[int, JobCounts]:
    """The counts of jobs by status and flag, in a few queries for all of them."""
    return _count(connection, job_ids, details=False)


def _count(connection: Connection, job_ids: Collection[int], *, details: bool) -> dict[int, JobCounts]:
    totals = totals_of_jobs(connection, job_ids, details=details)
    paused = _seconds_paused(connection, totals)
    return {job_id: _counts(each, paused[job_id]) for job_id, each in totals.items()}


def _counts(totals: JobTotals, paused_seconds: float) -> JobCounts:
    statuses = {
        ImageStatus.WAITING: totals.submitted - totals.completed,
        ImageStatus.SCORED: totals.scored,
        ImageStatus.UNGRADABLE: totals.ungradable,
        ImageStatus.FAILED: totals.failed,
    }
    flags = {
        TriageFlag.HIGH_RISK: totals.high_risk,
        TriageFlag.BORDERLINE: totals.borderline,
        TriageFlag.LOWER_PRIORITY: totals.lower_priority,
    }
    return JobCounts(
        by_status={status: number for status, number in statuses.items() if number},
        by_flag={flag: number for flag, number in flags.items() if number},
        by_failure=totals.failure_codes,
        by_ungradable_reason=totals.ungradable_reasons,
        reused=totals.reused,
        last_completed_at=totals.last_completed_at,
        paused_seconds=paused_seconds,
    )


def _seconds_paused(connection: Connection, totals: dict[int, JobTotals]) -> dict[int, float]:
    """Seconds in which nothing could be scored, by job."""
    entries = connection.execute(
        select(AuditEntry.job_id, AuditEntry.action, AuditEntry.at, Job.started_at)
        .join(Job, Job.id == AuditEntry.job_id)
        .where(AuditEntry.job_id.in_(totals), AuditEntry.action.in_((*_STOPS, *_STARTS)))
        .order_by(AuditEntry.number)
    )
    by_job: dict[int, list[Any]] = defaultdict(list)
    for entry in entries:
        until = totals[entry.job_id].last_completed_at
        if until is not None and entry.at <= until:
            by_job[entry.job_id].append(entry)
    return {job_id: _seconds_between(by_job[job_id]) for job_id in totals}


def _seconds_between(entries: Iterable[Any]) -> float:
    seconds, since = 0.0, None
    for _, action, at, started in entries:
        if action in _STOPS:
            since = since or at
        elif since is not None and started is not None:
            # A job may be paused before anybody begins with it.
            seconds, since = seconds + max((at - max(since, started)).total_seconds(), 0.0), None
    return seconds


@dataclass(frozen=True, kw_only=True)
class HeldChunk:
    """A chunk that a worker has claimed and not given back.

    Args:
        job_id: its job.
        bundle_id: of its job.
        chunk_id: its id.
        owner: the worker: host, process and a random number.
        lease_seconds_left: of its lease, by the database's clock. Negative when it has ended.
        silent_seconds: since the claim or the last image that has an outcome, whichever is later. 0 when unknown.
    """

    job_id: int
    bundle_id: int
    chunk_id: int
    owner: str
    lease_seconds_left: float
    silent_seconds: float


def held_chunks(connection: Connection) -> list[HeldChunk]:
    """The chunks that workers have: one for each process, however many jobs there are."""
    last = select(func.max(Image.completed_at)).where(Image.chunk_id == Chunk.id).scalar_subquery()
    rows = connection.execute(
        select(
            Chunk.job_id,
            Job.bundle_id,
            Chunk.id,
            Chunk.owner,
            Chunk.lease_expires_at,
            Chunk.claimed_at,
            last.label("last"),
            db_now().label("now"),
        )
        .join(Job, Job.id == Chunk.job_id)
        .where(Chunk.status == ChunkStatus.LEASED, Job.status.in_(CLAIMABLE))
    )
    return [
        HeldChunk(
            job_id=row.job_id,
            bundle_id=row.bundle_id,
            chunk_id=row.id,
            owner=row.owner or "",
            lease_seconds_left=(row.lease_expires_at - row.now).total_seconds(),
            silent_seconds=0.0
            if row.claimed_at is None
            else (row.now - max(row.claimed_at, row.last or row.claimed_at)).total_seconds(),
        )
        for row in rows
    ]
