"""The state of a job: its counts, its rate, the time left, and why it is stalled."""

from dataclasses import replace
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict, computed_field
from sqlalchemy import Connection, Engine

from db.audit import entries_of
from db.jobs import ACTIVE, JobFilter, JobView, find_jobs, view_jobs
from db.progress import JobCounts, count_images, count_jobs
from db.rates import RecentRate, rates_of_jobs, recent_work
from db.session import read
from db.status import AuditAction, FailureCode, ImageStatus, JobStatus, TriageFlag, UngradableReason
from worker.errors import DermqError
from worker.monitor.stalls import EXPECTED, STOPPED, Stall, StallKind, diagnose
from worker.terminal import printable


class JobReport(BaseModel):
    """A job for `dermq status --json`.

    Args:
        id: number of the job.
        status: as in `db.status.JobStatus`.
        interrupted: whether its submission was interrupted.
        source: the folder or manifest that was submitted.
        name: label that the submitter gave it.
        submitted_by: who submitted it. None for jobs of early versions.
        urgent: whether workers take it before bulk jobs.
        hours: hours of the day in which it is scored. None: always.
        resting: whether it is none of these hours.
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
        recent_images_per_second: newly scored images in the last minutes, by the time in which somebody worked. None
            when nobody works at it.
        seconds_left: estimate for a running job that is not stalled.
        stalled: why nothing happens and what to do. None when the job runs or has stopped.
        stall: kind of that. None when nothing holds it up.
        needs_attention: whether somebody must do something about it.
        passed_over: what the source holds and was not submitted, number by kind.
        state: the status in one word, or why an open job does not progress.
    """

    model_config = ConfigDict(frozen=True)

    id: int
    status: JobStatus
    interrupted: bool
    source: str
    name: str | None
    submitted_by: str | None
    urgent: bool
    hours: str | None
    resting: bool
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
    recent_images_per_second: float | None
    seconds_left: float | None
    stalled: str | None
    stall: StallKind | None
    needs_attention: bool
    passed_over: dict[str, int]

    @computed_field  # type: ignore[prop-decorator] # Mypy takes no decorator above a property.
    @property
    def state(self) -> str:
        """See the class."""
        if self.interrupted:
            return "interrupted"
        if self.status not in ACTIVE:
            return self.status
        if self.needs_attention:
            return "stalled"
        return {StallKind.RESTING: "resting", StallKind.WAITS_ITS_TURN: "waiting"}.get(
            self.stall or StallKind.SUBMITTING, self.status
        )


class JobList(BaseModel):
    """A page of jobs, for `dermq jobs --json` and the JSON of Flower.

    Args:
        jobs: in the order that was asked for.
        total: number of all jobs that fit.
    """

    jobs: list[JobReport]
    total: int


#: States that a filter calls open: all that do not stay as they are.
OPEN = (JobStatus.SUBMITTING, JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.PAUSED)


#: States of a filter that depend on why an open job does not progress.
_BY_STALL = {
    "interrupted": (StallKind.INTERRUPTED,),
    "resting": (StallKind.RESTING,),
    "stalled": tuple(kind for kind in StallKind if kind not in EXPECTED),
    "waiting": (StallKind.WAITS_ITS_TURN,),
}
#: All states of a filter.
STATES = ("open", *_BY_STALL, *JobStatus)


def describe_jobs(database: Engine, wanted: JobFilter | None = None, *, state: str = "", limit: int = 20) -> JobList:
    """Jobs with their counts, as `list_jobs`."""
    return read(database, lambda connection: list_jobs(connection, wanted or JobFilter(), state=state, limit=limit))


def list_jobs(connection: Connection, wanted: JobFilter, *, state: str = "", limit: int, offset: int = 0) -> JobList:
    """Jobs with their counts, in a few queries for all of them.

    Args:
        connection: to the database.
        wanted: which.
        state: one of `STATES`, ``stalled`` being those that need somebody's attention. Empty: all.
        limit: most jobs.
        offset: jobs to pass over.

    Raises:
        ValueError: there is no such state.
    """
    if state in _BY_STALL:
        wanted = replace(wanted, ids=jobs_by_stall(connection, state))
    elif state:
        wanted = replace(wanted, statuses=OPEN if state == "open" else (JobStatus(state),))
    jobs, total = find_jobs(connection, wanted, limit=limit, offset=offset)
    counts = count_jobs(connection, [job.id for job in jobs])
    stalls = diagnose(connection, jobs)
    rates = rates_of_jobs(*recent_work(connection, [job.id for job in jobs if job.status not in STOPPED]))
    reports = [_report(job, counts[job.id], stalls.get(job.id), rates.get(job.id)) for job in jobs]
    return JobList(jobs=reports, total=total)


def jobs_by_stall(connection: Connection, state: str) -> list[int]:
    """The open jobs in one of the states that depend on why a job does not progress."""
    stalls = diagnose(connection, view_jobs(connection, limit=None, active=True))
    return [job_id for job_id, stall in stalls.items() if stall.kind in _BY_STALL[state]]


def describe_job(database: Engine, job: JobView) -> JobReport:
    """A job with all its counts and its state."""
    return read(database, lambda connection: report_job(connection, job))


def report_job(connection: Connection, job: JobView) -> JobReport:
    """As `describe_job`, in a transaction that reads more."""
    rates = rates_of_jobs(*recent_work(connection, [job.id]))
    stall = diagnose(connection, [job]).get(job.id)
    return _report(job, count_images(connection, job.id), stall, rates.get(job.id))


def _report(job: JobView, counts: JobCounts, stall: Stall | None, recent: RecentRate | None) -> JobReport:
    rate = overall_rate(job, counts)
    running = job.status is JobStatus.RUNNING and not job.interrupted
    pace = recent.all if recent is not None else rate
    return JobReport(
        id=job.id,
        status=job.status,
        interrupted=job.interrupted,
        source=job.manifest or job.root,
        name=job.name,
        submitted_by=job.submitted_by,
        urgent=job.urgent,
        hours=job.hours,
        resting=job.resting and job.status in ACTIVE,
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
        recent_images_per_second=recent.new if recent is not None and running and stall is None else None,
        seconds_left=(counts.submitted - counts.completed) / pace if running and pace and stall is None else None,
        stalled=stall.text if stall is not None else None,
        stall=stall.kind if stall is not None else None,
        needs_attention=stall is not None and stall.kind not in EXPECTED,
        passed_over=job.passed_over or {},
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
