"""Commands that show jobs and workers: `jobs`, `status`, `watch` and `top`."""

import sys
import time
from typing import TYPE_CHECKING

import click

from db.status import JobStatus
from worker.cli.session import JOB_NUMBER, open_checked_database
from worker.settings import load_settings
from worker.terminal import make_console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Engine

    from db.jobs import JobView

#: Seconds between two screens of `top`.
_TOP_INTERVAL = 2.0
#: As in `worker.monitor.job_status`, which imports much more than `dermq --help` should.
_STATES = ["open", "interrupted", "resting", "stalled", "waiting", *(status.value for status in JobStatus)]


def watch_jobs(database: "Engine", jobs: "Sequence[int]") -> "list[JobView]":
    """Show the progress of jobs until they stop. Ctrl-C ends the display, not the jobs."""
    from worker.monitor.terminal_progress import watch

    try:
        return watch(database, jobs, make_console(stderr=True))
    except KeyboardInterrupt:
        numbers = " ".join(map(str, jobs))
        which = f"job {numbers}" if len(jobs) == 1 else "the jobs"
        click.echo(f"Only the display ended, not {which}. Follow with: dermq watch {numbers}", err=True)
        raise


@click.command(short_help="List jobs.")
@click.option("--state", type=click.Choice(_STATES), metavar="STATE", help=f"Only: {', '.join(_STATES)}.")
@click.option("--search", default="", metavar="TEXT", help="Only with this in name, source or submitter.")
@click.option(
    "--order",
    type=click.Choice(["newest", "oldest", "name", "state", "priority"]),
    default="newest",
    show_default=True,
    help="Order of the list.",
)
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Most jobs.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document; docs/operations.md has its schema.")
def jobs(state: str | None, search: str, order: str, limit: int, as_json: bool) -> None:
    """List jobs with progress, rate and time left, the newest first.

    \b
    dermq jobs --state open
    dermq jobs --search 2019 --json

    Exit status 1: no job fits.
    """
    _list(state or "", search, order, limit, as_json)


def _list(state: str, search: str, order: str, limit: int, as_json: bool) -> None:
    from db.jobs import JobFilter, JobOrder
    from worker.monitor.job_status import describe_jobs
    from worker.monitor.summary import print_job_list

    wanted = JobFilter(text=search, order=JobOrder(order))
    found = describe_jobs(open_checked_database(), wanted, state=state, limit=limit)
    if as_json:
        click.echo(found.model_dump_json(indent=2))
    elif found.jobs:
        print_job_list(found.jobs, make_console())
        if found.total > len(found.jobs):
            click.echo(f"… and {found.total - len(found.jobs):,} more. Show more with --limit.", err=True)
    elif state or search:
        click.echo("No job fits.", err=True)
    else:
        click.echo("There are no jobs yet. Submit one: dermq submit FOLDER")
        return
    if not found.jobs:
        sys.exit(1)


@click.command(short_help="Show a job, or list the newest jobs.")
@click.argument("job", type=JOB_NUMBER, required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document; docs/operations.md has its schema.")
def status(job: int | None, as_json: bool) -> None:
    """Show the state and the outcomes of JOB, or list the newest jobs as `dermq jobs` does."""
    from worker.monitor.job_status import describe_job, find_job
    from worker.monitor.summary import print_summary

    if job is None:
        _list("", "", "newest", 20, as_json)
        return
    database = open_checked_database()
    view = find_job(database, job)
    if as_json:
        click.echo(describe_job(database, view).model_dump_json(indent=2))
    else:
        print_summary(database, view, make_console())


@click.command(short_help="Follow the progress of jobs.")
@click.argument("jobs", type=JOB_NUMBER, nargs=-1, metavar="[JOB]...")
def watch(jobs: tuple[int, ...]) -> None:
    """Follow the progress of each JOB, or of the newest job, until all are finished, paused or cancelled.

    Exit status 0: all are finished; 1: one stopped before that.
    """
    from worker.monitor.job_status import find_job
    from worker.monitor.summary import print_summary

    database = open_checked_database()
    numbers = list(dict.fromkeys(find_job(database, job).id for job in jobs or (None,)))
    stopped = watch_jobs(database, numbers)
    for view in stopped:
        print_summary(database, view, make_console(), cases=10 if len(stopped) == 1 else 0)
    sys.exit(0 if all(view.status is JobStatus.FINISHED for view in stopped) else 1)


@click.command(short_help="Watch workers and open jobs.")
@click.option("--once", is_flag=True, help="Print one screen and end.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and end.")
def top(once: bool, as_json: bool) -> None:
    """Watch what each process of the workers does, and the open jobs, until Ctrl-C."""
    from rich.live import Live

    from worker.monitor.terminal_top import look, render
    from worker.queue.app import make_app

    settings = load_settings()
    database, app = open_checked_database(), make_app(settings)
    console = make_console()
    if as_json:
        click.echo(look(database, app).model_dump_json(indent=2))
        return
    if once or not console.is_terminal:
        console.print(render(look(database, app), console.width))
        return
    with Live(console=console, screen=True, auto_refresh=False) as screen:
        while True:
            screen.update(render(look(database, app), console.width), refresh=True)
            time.sleep(_TOP_INTERVAL)
