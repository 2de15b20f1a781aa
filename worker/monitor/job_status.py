"""How a job stands: its counts, its rate, and why it is stalled."""

from sqlalchemy import Engine

from db.jobs import JobView, view_jobs
from db.progress import JobCounts, has_live_lease
from db.session import read
from db.status import ImageStatus, JobStatus
from worker.errors import DermqError
from worker.settings import load_settings
from worker.terminal import printable

#: Statuses in which a job changes no more by itself.
AT_REST = (JobStatus.FINISHED, JobStatus.CANCELLED, JobStatus.PAUSED)
_NOBODY_WORKS = "No worker has it in hand: is `dermq up` running, and what does `dermq check` say?"


def find_job(database: Engine, job_id: int | None) -> JobView:
    """The job of this number, or the newest.

    Raises:
        DermqError: there is no such job.
    """
    jobs = read(database, lambda connection: view_jobs(connection, job_id=job_id, limit=1))
    if not jobs:
        known = read(database, lambda connection: view_jobs(connection, limit=5))
        numbers = ", ".join(str(job.id) for job in known)
        missing = f"There is no job {job_id}, or it was deleted. " if job_id is not None else ""
        raise DermqError(missing + (f"The newest: {numbers}." if known else "There are no jobs yet: `dermq submit`."))
    return jobs[0]


def why_it_stands(database: Engine, job: JobView) -> str | None:
    """Why a job does not go on, as far as its rows say, and what to do; None when it rests or a worker has it."""
    if job.abandoned:
        source = printable(job.manifest or job.root)
        return (
            f"Its submission was broken off: `dermq submit {source}` with the same options goes on with it, `dermq "
            f"cancel {job.id}` gives it up."
        )
    if job.status is JobStatus.SUBMITTING:
        return "It is still being taken in."
    if job.status in AT_REST or read(database, lambda connection: has_live_lease(connection, job.id)):
        return None
    # Here, because it loads what decodes images, and most jobs go on.
    from worker.inference.bundle_reference import bundle_here, bundle_running

    settings = load_settings()
    here = bundle_running(settings) or bundle_here(settings)
    if here is not None and here.sha256 != job.bundle_sha256:
        return (
            f"No worker has it in hand. It waits for the bundle {job.bundle_name} {job.bundle_version} "
            f"({job.bundle_sha256[:12]}), the one here is {here}, and a worker scores under its own alone: start a "
            f"worker with the job's (DERMQ_BUNDLE), or `dermq cancel {job.id}` and submit again."
        )
    return _NOBODY_WORKS


def _worked(job: JobView, counts: JobCounts) -> float | None:
    """Seconds from the first claim to the last end so far, without those in which it was paused or finished."""
    if job.started_at is None or counts.last_end is None:
        return None
    return (counts.last_end - job.started_at).total_seconds() - counts.rested


def overall_rate(job: JobView, counts: JobCounts) -> float | None:
    """Images per second over the whole job; None for less than a second, which says nothing of the next."""
    seconds = _worked(job, counts)
    return None if seconds is None or seconds < 1 else counts.ended / seconds


def outcome_counts(counts: JobCounts) -> str:
    """``4,990 scored, 12 ungradable, 13 failed``."""
    ends = (ImageStatus.SCORED, ImageStatus.UNGRADABLE, ImageStatus.FAILED)
    return ", ".join(f"{counts.by_status.get(status, 0):,} {status}" for status in ends)


def job_rate(job: JobView, counts: JobCounts) -> str:
    """How long a job has taken and how fast it was, or an empty text before its first image ended."""
    seconds, rate = _worked(job, counts), overall_rate(job, counts)
    if seconds is None:
        return ""
    return f"{seconds:.1f} s" + (f", {rate:.0f} images/s" if rate is not None else "")
