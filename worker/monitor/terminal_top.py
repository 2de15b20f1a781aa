"""`dermq top`: the processes of the workers and the open jobs on one screen."""

from collections.abc import Sequence

from celery import Celery
from pydantic import BaseModel
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from sqlalchemy import Engine

from db.jobs import JobFilter
from db.session import read
from db.status import ImageStatus
from worker.errors import BrokerError
from worker.monitor.job_status import OPEN, JobReport, clock, describe_jobs
from worker.monitor.processes import ProcessReport, describe_processes
from worker.queue.hints import queue_length
from worker.queue.inspect import workers_answers
from worker.terminal import printable

#: Open jobs that are shown.
_JOBS = 20
#: Seconds that workers have to answer.
_ANSWER_SECONDS = 1.0
#: Columns of a terminal from which all is shown.
_WIDE = 80
#: Least width of columns whose cells are wider than their title.
_LEAST = {"state": 8, "left": 7}


class Screen(BaseModel):
    """What `dermq top` shows.

    Args:
        answering: workers that answer.
        processes: that have a chunk or closed one lately.
        jobs: open ones, newest first.
        open_jobs: number of all open jobs.
        messages: in the queues by priority. None when the broker does not answer.
    """

    answering: list[str]
    processes: list[ProcessReport]
    jobs: list[JobReport]
    open_jobs: int
    messages: dict[str, int] | None


def look(database: Engine, app: Celery) -> Screen:
    """Look at workers and jobs now."""
    answers = workers_answers(app, _ANSWER_SECONDS)
    try:
        messages = {name: queue_length(app, urgent=urgent) for name, urgent in (("urgent", True), ("bulk", False))}
    except BrokerError:
        messages = None
    _, processes = read(database, lambda connection: describe_processes(connection, answers))
    found = describe_jobs(database, JobFilter(statuses=OPEN), limit=_JOBS)
    return Screen(
        answering=sorted(map(printable, answers)),
        processes=processes,
        jobs=found.jobs,
        open_jobs=found.total,
        messages=messages,
    )


def render(screen: Screen, width: int) -> RenderableType:
    """The screen for a terminal of so many columns."""
    rate = sum(process.images_per_second or 0.0 for process in screen.processes if process.chunk is not None)
    queues = (
        "the broker does not answer: run `dermq check`"
        if screen.messages is None
        else ", ".join(f"{name} {number:,}" for name, number in screen.messages.items())
    )
    workers = f"{len(screen.answering)} worker{'s' if len(screen.answering) != 1 else ''} answering"
    head = Text(f"{workers}, {rate:,.0f} images/s, messages: {queues}, open jobs: {screen.open_jobs:,}")
    return Group(head, "", _processes(screen.processes, width), "", _jobs(screen.jobs, width))


def _processes(processes: list[ProcessReport], width: int) -> RenderableType:
    if not processes:
        return Text("No worker answers. Start one: `dermq up` or `dermq worker`.", style="dim")
    titles = ("host", "process", "images/s", "in hand", "silent", "engine")[: 6 if width >= _WIDE else 5]
    table = _table(titles)
    for process in processes:
        in_hand = "" if process.chunk is None else f"chunk {process.chunk} of job {process.job}"
        silent = "" if process.silent_seconds is None else f"{process.silent_seconds:.0f} s"
        if process.lease_seconds_left is not None and process.lease_seconds_left < 0:
            silent = f"lease ended {-process.lease_seconds_left:.0f} s ago"
        rate = "" if process.images_per_second is None else f"{process.images_per_second:,.0f}"
        cells = (process.host, process.process, rate, in_hand, silent, process.engine)
        if not process.alive:
            cells = (*cells[:3], in_hand or "no answer", *cells[4:])
        bad = process.stalled or not process.alive
        table.add_row(*map(Text, cells[: len(titles)]), style="bold red" if bad else None)
    return table


def _jobs(jobs: list[JobReport], width: int) -> RenderableType:
    if not jobs:
        return Text("No job is open.", style="dim")
    # On a narrow terminal, what matters most.
    shown = (0, 1, 2, 3, 4, 5, 6) if width >= _WIDE else (0, 1, 2, 4, 6)
    titles = ("job", "state", "done", "images/s", "left", "failed", "name")
    table = _table([titles[index] for index in shown])
    for job in jobs:
        percent = 100 * job.completed // job.submitted if job.submitted else 0
        rate = "" if job.recent_images_per_second is None else f"{job.recent_images_per_second:,.0f}"
        left = "" if job.seconds_left is None else clock(job.seconds_left)
        name = printable(job.name or job.source)
        cells = (str(job.id), job.state, f"{percent}%", rate, left, f"{job.images[ImageStatus.FAILED]:,}", name)
        table.add_row(*(Text(cells[index]) for index in shown), style="bold red" if job.needs_attention else None)
    return table


def _table(titles: Sequence[str]) -> Table:
    """A table whose last column gives way when the terminal is narrow. No cell is broken into lines."""
    table = Table(box=None, header_style="dim", pad_edge=False)
    for number, title in enumerate(titles):
        last = number == len(titles) - 1
        least = None if last else _LEAST.get(title, len(title))
        table.add_column(title, no_wrap=True, overflow="ellipsis", min_width=least, ratio=1 if last else None)
    return table
