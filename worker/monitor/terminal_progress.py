"""A job's progress on a terminal, counted from its rows."""

import time
from collections import deque
from collections.abc import Iterator
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from sqlalchemy import Engine

from db.jobs import JobView
from db.progress import JobCounts, count_statuses
from db.session import read
from db.status import JobStatus
from worker.log_throttle import Complaint
from worker.monitor.job_status import AT_REST, find_job, outcome_counts, overall_rate, why_it_stands

_ASK_EVERY = 1.0
#: Seconds between two lines where there is no terminal to draw a bar on.
_LINE_EVERY = 10.0
#: Seconds that the shown rate looks back.
_SPEED_WINDOW = 20.0
#: Seconds without progress after which it is asked whether anybody works.
_IDLE_AFTER = 4.0
#: Columns that the words take.
_WIDTH_OF_TEXT = 90


def watch(database: Engine, job_id: int, console: Console) -> JobView:
    """Show a job's progress until it rests.

    Args:
        database: from `db.session.open_database`.
        job_id: the job.
        console: on a terminal a bar with rate, time left and outcome counts; else a line every ten seconds.

    Returns:
        The job as it came to rest.
    """
    text_columns = [TextColumn("job {task.fields[job]}"), TextColumn("{task.fields[text]}", markup=False)]
    # What is read comes first: on a narrow terminal the bar gives way.
    bar_columns = [BarColumn(bar_width=min(40, console.width - _WIDTH_OF_TEXT))]
    bar = Progress(
        *(bar_columns if console.width > _WIDTH_OF_TEXT + 5 else []),
        *text_columns,
        console=console,
        disable=not console.is_terminal,
    )
    speed = _Speed()
    with bar:
        task = bar.add_task("images", total=None, job=job_id, text="")
        last_line, complaint, told = -_LINE_EVERY, Complaint(), None
        for job, counts in _observe(database, job_id):
            speed.note(counts.ended)
            text = _progress_text(job, counts, speed)
            total = counts.submitted if job.status is not JobStatus.SUBMITTING else None
            bar.update(task, total=total, completed=counts.ended, text=text)
            why = why_it_stands(database, job) if speed.seconds_without_progress() > _IDLE_AFTER else None
            if console.is_terminal:
                if why and why != told:
                    # Above the bar, whose one line a narrow terminal cuts off.
                    console.print(f"job {job_id}: {why}", markup=False, highlight=False)
                told = why
            elif time.monotonic() - last_line >= _LINE_EVERY or job.status in AT_REST:
                last_line = time.monotonic()
                if why != told:
                    complaint.withdraw()
                # With every line it would fill a night's log.
                reason = f". {why}" if why and complaint.due() else ""
                told = why
                console.print(f"job {job_id} {job.status}: {text}{reason}", markup=False)
    return find_job(database, job_id)


class _Speed:
    """Images per second over the recent past, so that neither a stop nor a slow start is taken for work."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()
        self._last_change = time.monotonic()

    def note(self, ended: int) -> None:
        """So many images have ended by now."""
        now = time.monotonic()
        if self._seen and ended != self._seen[-1][1]:
            self._last_change = now
        self._seen.append((now, ended))
        while now - self._seen[0][0] > _SPEED_WINDOW and len(self._seen) > 2:
            self._seen.popleft()

    def rate(self) -> float | None:
        """Images per second; not known before there are two observations."""
        (start, first), (now, last) = self._seen[0], self._seen[-1]
        return (last - first) / (now - start) if now > start else None

    def seconds_without_progress(self) -> float:
        """Since the number of ended images last changed."""
        return time.monotonic() - self._last_change


def _progress_text(job: JobView, counts: JobCounts, speed: _Speed) -> str:
    rate = speed.rate()
    parts = [f"{counts.ended:,} of {counts.submitted:,}"]
    if job.status in AT_REST:
        if (whole := overall_rate(job, counts)) is not None:
            parts.append(f"{whole:.0f}/s")
    elif rate is not None:
        parts.append(f"{rate:.0f}/s")
        if rate > 0 and job.status is not JobStatus.SUBMITTING:
            seconds = round((counts.submitted - counts.ended) / rate)
            parts.append(f"{timedelta(seconds=seconds)} left")
    return ", ".join([*parts, outcome_counts(counts)])


def _observe(database: Engine, job_id: int) -> Iterator[tuple[JobView, JobCounts]]:
    while True:
        # The job first: what it says of itself is then never newer than the counts.
        job = find_job(database, job_id)
        counts = read(database, lambda connection: count_statuses(connection, job_id))
        yield job, counts
        # A submission that was broken off goes on when somebody submits again; until then nothing more happens.
        if job.status in AT_REST or (job.abandoned and counts.ended == counts.submitted):
            return
        time.sleep(_ASK_EVERY)
