"""The state of a job: its counts, its rate, the time left, and why it is stalled."""

from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection, Engine

from db.audit import entries_of
from db.jobs import JobView, view_jobs
from db.progress import JobCounts, count_images, count_jobs
from db.session import read
from db.status import AuditAction, FailureCode, ImageStatus, JobStatus, TriageFlag, UngradableReason
from worker.errors import DermqError
from worker.monitor.stalls import Stall, diagnose
from worker.terminal import printable


class JobReport(BaseModel):
    """A job for `dermq status --json`.

    Args:
        id: number of the job.
        status: as in `db.status.JobStatus`.
        interrupted: whether its submission was interrupted.
        source: the folder or manifest that was submitted.
        urgent: whether workers take it before bulk jobs.
        bundle: name and version of the bundle.
        bundle_sha256: SHA-256 of its ``bundle.json``.
        policy: triage policy.
        threshold: calibrated probability from which an image is ``high_risk``.
        borderline_threshold: calibrated probability from which an image is at least ``borderline``.
        submitted_at: UTC.
        started_at: UTC, first claim of a worker.
        finished_at: UTC, also of a cancelled job.
        images: number of images by status: ``waiting``, ``scored``, ``ungradable``, ``failed``.
        submitted: number of all images.
        completed: number of images with an outcome.
        flags: number of scored images by triage flag.
        failures: number of failed images by failure code. Empty in a list of jobs.
        ungradable_reasons: number of ungradable images by reason. Empty in a list of jobs.
        reused: scored images whose output was reused from earlier images with the same bytes.
        images_per_second: mean since the first claim, without pauses. None for less than a second.
        seconds_left: estimate for a running job that is not stalled.
        stalled: why nothing happens and what to do. None when the job runs or has stopped.
    """

    model_config = ConfigDict(frozen=True)

    id: int
    status: JobStatus
    interrupted: bool
    source: str
    urgent: bool
    bundle: str
    bundle_sha256: str
    policy: str
    threshold: float
    borderline_threshold: float
    submitted_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    images: dict[ImageStatus, int]
    submitted: int
    completed: int
    flags: dict[TriageFlag, int]
    failures: dict[FailureCode, int]
    ungradable_reasons: dict[UngradableReason, int]
    reused: int
    images_per_second: float | None
    seconds_left: float | None
    stalled: str | None


class JobList(BaseModel):
    """The newest jobs, newest first, for `dermq status --json`."""

    jobs: list[JobReport]


def describe_jobs(database: Engine, limit: int = 20) -> JobList:
    """The newest jobs with their counts, in a few queries for all of them."""

    def look(connection: Connection) -> tuple[list[JobView], dict[int, JobCounts], dict[int, Stall]]:
        jobs = view_jobs(connection, limit=limit)
        return jobs, count_jobs(connection, [job.id for job in jobs]), diagnose(connection, jobs)

    jobs, counts, stalls = read(database, look)
    return JobList(
        jobs=[_report(job, counts[job.id], stalls[job.id].text if job.id in stalls else None) for job in jobs]
    )


def describe_job(database: Engine, job: JobView) -> JobReport:
    """A job with all its counts and its state."""
    counts = read(database, lambda connection: count_images(connection, job.id))
    return _report(job, counts, stall_reason(database, job))


def _report(job: JobView, counts: JobCounts, stalled: str | None) -> JobReport:
    rate = overall_rate(job, counts)
    running = job.status is JobStatus.RUNNING and not job.interrupted
    return JobReport(
        id=job.id,
        status=job.status,
        interrupted=job.interrupted,
        source=job.manifest or job.root,
        urgent=job.urgent,
        bundle=f"{job.bundle_name} {job.bundle_version}",
        bundle_sha256=job.bundle_sha256,
        policy=job.policy,
        threshold=job.threshold,
        borderline_threshold=job.borderline_threshold,
        submitted_at=job.submitted_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        images={status: counts.by_status.get(status, 0) for status in ImageStatus},
        submitted=counts.submitted,
        completed=counts.completed,
        flags=counts.by_flag,
        failures=counts.by_failure,
        ungradable_reasons=counts.by_ungradable_reason,
        reused=counts.reused,
        images_per_second=rate,
        seconds_left=(counts.submitted - counts.completed) / rate if running and rate and stalled is None else None,
        stalled=stalled,
    )


def find_job(database: Engine, job_id: int | None) -> JobView:
    """The job with this id, or the newest job.

    Raises:
        DermqError: there is no such job.
    """
    jobs = read(database, lambda connection: view_jobs(connection, job_id=job_id, limit=1))
    if not jobs:
        known = read(database, lambda connection: view_jobs(connection, limit=5))
        ids = ", ".join(str(job.id) for job in known)
        missing = f"{_gone(database, job_id)} " if job_id is not None else ""
        raise DermqError(missing + (f"The newest jobs: {ids}." if known else "There are no jobs yet: `dermq submit`."))
    return jobs[0]


def _gone(database: Engine, job_id: int) -> str:
    """Why there is no such job, from the audit log, which outlives it."""
    entries = read(database, lambda connection: entries_of(connection, job_id))
    deleted = next((entry for entry in entries if entry.action == AuditAction.DELETED), None)
    if deleted is None:
        return f"There is no job {job_id}."
    return f"Job {job_id} was deleted on {deleted.at:%Y-%m-%d} by {printable(deleted.actor)}."


def stall_reason(database: Engine, job: JobView) -> str | None:
    """Why a job does not progress and what to do, see `worker.monitor.stalls`. None when it does, or has stopped."""
    stall = read(database, lambda connection: diagnose(connection, [job])).get(job.id)
    return stall.text if stall is not None else None


def outcome_counts(counts: JobCounts) -> str:
    """``4,990 scored, 12 ungradable, 13 failed``."""
    outcomes = (ImageStatus.SCORED, ImageStatus.UNGRADABLE, ImageStatus.FAILED)
    return ", ".join(f"{counts.by_status.get(status, 0):,} {status}" for status in outcomes)


def job_rate(job: JobView, counts: JobCounts) -> str:
    """Duration and rate of a job: ``25.3 s, 198 images/s``. Empty before its first outcome."""
    seconds, rate = _seconds_active(job, counts), overall_rate(job, counts)
    if seconds is None:
        return ""
    return f"{seconds:.1f} s" + (f", {rate:.0f} images/s" if rate is not None else "")


def overall_rate(job: JobView, counts: JobCounts) -> float | None:
    """Mean images per second of a job. None for less than a second, which is too short."""
    seconds = _seconds_active(job, counts)
    return None if seconds is None or seconds < 1 else counts.completed / seconds


def clock(seconds: float) -> str:
    """``0:02:15``."""
    return str(timedelta(seconds=round(seconds)))


def _seconds_active(job: JobView, counts: JobCounts) -> float | None:
    """Seconds from the first claim to the newest outcome, without pauses."""
    if job.started_at is None or counts.last_completed_at is None:
        return None
    return (counts.last_completed_at - job.started_at).total_seconds() - counts.paused_seconds
