"""The progress of a job on a terminal or in a log."""

import time
from collections import deque
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from sqlalchemy import Engine

from db.jobs import JobView
from db.progress import JobCounts, count_jobs
from db.session import read
from db.status import JobStatus
from worker.log_throttle import LogThrottle
from worker.monitor.job_status import clock, find_job, outcome_counts, overall_rate, stall_reason
from worker.monitor.stalls import STOPPED

#: Seconds between two queries.
_POLL_INTERVAL = 1.0
#: Seconds between two lines when there is no terminal to draw a bar on.
_LINE_INTERVAL = 10.0
#: Seconds over which the shown rate is averaged.
_RATE_WINDOW = 20.0
#: Seconds without progress after which the display shows the cause.
_STALL_AFTER = 4.0
#: Columns of the text beside the bar.
_TEXT_WIDTH = 90


def watch(database: Engine, job_id: int, console: Console) -> JobView:
    """Show a job's progress until it stops.

    Args:
        database: from `db.session.open_database`.
        job_id: the job.
        console: on a terminal it shows a bar with rate, time left and outcome counts; else a line every ten seconds.

    Returns:
        The job when it has stopped.
    """
    text_columns = [TextColumn("{task.fields[text]}", markup=False)]
    # The text matters more: on a narrow terminal there is no bar.
    bar_columns = [BarColumn(bar_width=min(40, console.width - _TEXT_WIDTH))]
    bar = Progress(
        *(bar_columns if console.width > _TEXT_WIDTH + 5 else []),
        *text_columns,
        console=console,
        disable=not console.is_terminal,
    )
    rate = _RecentRate()
    with bar:
        task = bar.add_task("images", total=None, text=f"job {job_id}")
        last_line, throttle, told = -_LINE_INTERVAL, LogThrottle(), None
        for job, counts in _observe(database, job_id):
            rate.add(counts.completed)
            text = _progress_text(job, counts, rate)
            total = counts.submitted if job.status is not JobStatus.SUBMITTING else None
            bar.update(task, total=total, completed=counts.completed, text=f"job {job_id} {job.status}: {text}")
            reason = stall_reason(database, job) if rate.seconds_without_progress() > _STALL_AFTER else None
            if console.is_terminal:
                if reason and reason != told:
                    # Above the bar: its one line would be cut off on a narrow terminal.
                    console.print(f"job {job_id}: {reason}", markup=False, highlight=False)
                told = reason
            elif time.monotonic() - last_line >= _LINE_INTERVAL or job.status in STOPPED:
                last_line = time.monotonic()
                if reason != told:
                    throttle.reset()
                # Not with every line, which would fill a night's log.
                shown = f". {reason}" if reason and throttle.allow() else ""
                told = reason
                console.print(f"job {job_id} {job.status}: {text}{shown}", markup=False)
    return find_job(database, job_id)


class _RecentRate:
    """Images per second over the recent past, so that neither a pause nor a slow start distorts it."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()
        self._last_change = time.monotonic()

    def add(self, completed: int) -> None:
        """Record the number of images with an outcome."""
        now = time.monotonic()
        if self._seen and completed != self._seen[-1][1]:
            self._last_change = now
        self._seen.append((now, completed))
        while now - self._seen[0][0] > _RATE_WINDOW and len(self._seen) > 2:
            self._seen.popleft()

    def per_second(self) -> float | None:
        """None before there are two observations."""
        (start, first), (now, last) = self._seen[0], self._seen[-1]
        return (last - first) / (now - start) if now > start else None

    def seconds_without_progress(self) -> float:
        """Seconds since the number last changed."""
        return time.monotonic() - self._last_change


def _progress_text(job: JobView, counts: JobCounts, recent: _RecentRate) -> str:
    rate = recent.per_second()
    parts = [f"{counts.completed:,} of {counts.submitted:,}"]
    if job.status in STOPPED:
        if (overall := overall_rate(job, counts)) is not None:
            parts.append(f"{overall:.0f}/s")
    elif rate is not None and counts.completed:
        parts.append(f"{rate:.0f}/s")
        if rate > 0 and job.status is not JobStatus.SUBMITTING:
            parts.append(f"{clock((counts.submitted - counts.completed) / rate)} left")
    return ", ".join([*parts, outcome_counts(counts)])


def _observe(database: Engine, job_id: int) -> Iterator[tuple[JobView, JobCounts]]:
    while True:
        # The job first, so that its state is never newer than the counts.
        job = find_job(database, job_id)
        counts = read(database, lambda connection: count_jobs(connection, [job_id])[job_id])
        yield job, counts
        # An interrupted submission continues only when somebody submits again.
        if job.status in STOPPED or (job.interrupted and counts.completed == counts.submitted):
            return
        time.sleep(_POLL_INTERVAL)
