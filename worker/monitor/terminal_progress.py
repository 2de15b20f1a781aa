"""The progress of jobs on a terminal or in a log."""

import time
from collections.abc import Collection, Iterator, Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from db.jobs import JobFilter, JobView
from db.status import ImageStatus, JobStatus
from worker.log_throttle import LogThrottle
from worker.monitor.job_status import JobReport, clock, describe_jobs, find_job
from worker.monitor.stalls import STOPPED

#: Seconds between two queries.
_POLL_INTERVAL = 1.0
#: Seconds between two lines when there is no terminal to draw a bar on.
_LINE_INTERVAL = 10.0
#: Seconds without progress after which the display shows the cause.
_STALL_AFTER = 4.0
#: Columns of a terminal from which a bar is drawn, and counts are shown beside it.
_WITH_BAR, _WITH_COUNTS = 60, 110


def watch(database: Engine, job_ids: Sequence[int], console: Console) -> list[JobView]:
    """Show the progress of jobs until all have stopped. A database that does not answer does not end it.

    Args:
        database: from `db.session.open_database`.
        job_ids: the jobs.
        console: on a terminal it shows a line for each with a bar, rate and time left; else a line every ten seconds.

    Returns:
        The jobs when they have stopped.
    """
    columns = [TextColumn("{task.description}", markup=False)]
    # On a narrow terminal, the text matters more.
    bars = [BarColumn(bar_width=max(10, min(40, console.width - 60)))] if console.width >= _WITH_BAR else []
    after = [TextColumn("{task.fields[text]}", markup=False)]
    display = Progress(*columns, *bars, *after, console=console, disable=not console.is_terminal)
    lines = {job_id: _Line(job_id, console) for job_id in job_ids}
    with display:
        for job_id, line in lines.items():
            line.task = display.add_task(f"job {job_id}", total=None, text="")
        for jobs in _observe(database, job_ids, console):
            for job in jobs:
                line, told = lines[job.id], lines[job.id].note(job)
                total = job.submitted if job.status is not JobStatus.SUBMITTING else None
                text = _text(job, console.width)
                display.update(line.task, total=total, completed=job.completed, text=f"{job.state} {text}")
                if console.is_terminal:
                    if told:
                        # Above the bars: beside one it would be cut off.
                        console.print(f"job {job.id}: {told}", markup=False, highlight=False)
                else:
                    line.print(job, told)
    return [find_job(database, job_id) for job_id in job_ids]


class _Line:
    """What was shown of a job."""

    def __init__(self, job_id: int, console: Console) -> None:
        self._job_id, self._console = job_id, console
        self.task = TaskID(0)
        self._completed, self._changed = -1, time.monotonic()
        self._told: str | None = None
        self._throttle = LogThrottle()
        self._last_line, self._last_text = -_LINE_INTERVAL, ""

    def note(self, job: JobReport) -> str | None:
        """The reason why the job does not progress, when it is new."""
        now = time.monotonic()
        if job.completed != self._completed:
            self._completed, self._changed = job.completed, now
        reason = job.stalled if now - self._changed > _STALL_AFTER else None
        new = reason if reason != self._told else None
        if reason != self._told:
            self._throttle.reset()
        self._told = reason
        return new

    def print(self, job: JobReport, told: str | None) -> None:
        """Print a line, unless one was printed a moment ago."""
        now = time.monotonic()
        text = f"job {job.id} {job.state}: {_text(job, _WITH_COUNTS)}"
        due = told or now - self._last_line >= _LINE_INTERVAL or job.status in STOPPED
        if not due or (text == self._last_text and not told):
            return
        self._last_line, self._last_text = now, text
        # Not with every line, which would fill a night's log.
        reason = f". {self._told}" if self._told and self._throttle.allow() else ""
        self._console.print(f"{text}{reason}", markup=False)


def _text(job: JobReport, width: int) -> str:
    """Progress as wide as the terminal allows."""
    percent = 100 * job.completed // job.submitted if job.submitted else 0
    parts = [f"{percent}%" if width < _WITH_BAR else f"{job.completed:,} of {job.submitted:,}"]
    stopped = job.status in STOPPED
    rate = job.images_per_second if stopped else job.recent_images_per_second
    if rate is not None:
        parts.append(f"{rate:.0f}/s")
    if not stopped and job.seconds_left is not None:
        parts.append(f"{clock(job.seconds_left)} left")
    if width >= _WITH_COUNTS:
        parts += [
            f"{job.images[status]:,} {status}"
            for status in (ImageStatus.SCORED, ImageStatus.UNGRADABLE, ImageStatus.FAILED)
        ]
    elif job.images[ImageStatus.FAILED] and width >= _WITH_BAR:
        parts.append(f"{job.images[ImageStatus.FAILED]:,} failed")
    return ", ".join(parts)


def _observe(database: Engine, job_ids: Collection[int], console: Console) -> Iterator[list[JobReport]]:
    throttle = LogThrottle()
    while True:
        try:
            jobs = describe_jobs(database, JobFilter(ids=job_ids), limit=len(job_ids)).jobs
        except SQLAlchemyError as error:
            if throttle.allow():
                console.print(f"The database does not answer ({type(error).__name__}). Trying again.", markup=False)
            time.sleep(_POLL_INTERVAL)
            continue
        throttle.reset()
        yield jobs
        if all(_is_over(job) for job in jobs):
            return
        time.sleep(_POLL_INTERVAL)


def _is_over(job: JobReport) -> bool:
    # An interrupted submission continues only when somebody submits again.
    return job.status in STOPPED or (job.interrupted and job.completed == job.submitted)
