"""Commands that show jobs: `status` and `watch`."""

import sys
from typing import TYPE_CHECKING

import click

from worker.cli.session import JOB_NUMBER, open_checked_database
from worker.terminal import make_console

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from db.jobs import JobView


def watch_job(database: "Engine", job: int) -> "JobView":
    """Show a job's progress until it stops. Ctrl-C ends the display, not the job."""
    from worker.monitor.terminal_progress import watch

    try:
        return watch(database, job, make_console(stderr=True))
    except KeyboardInterrupt:
        click.echo(f"Only the display ended, not job {job}. Follow it with: dermq watch {job}", err=True)
        raise


@click.command(short_help="Show a job, or list the newest jobs.")
@click.argument("job", type=JOB_NUMBER, required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document; docs/operations.md has its schema.")
def status(job: int | None, as_json: bool) -> None:
    """Show the state and the outcomes of JOB, or list the newest jobs."""
    from worker.monitor.job_status import describe_job, describe_jobs, find_job
    from worker.monitor.summary import print_job_list, print_summary

    database = open_checked_database()
    if job is not None:
        view = find_job(database, job)
        if as_json:
            click.echo(describe_job(database, view).model_dump_json(indent=2))
        else:
            print_summary(database, view, make_console())
        return
    found = describe_jobs(database)
    if as_json:
        click.echo(found.model_dump_json(indent=2))
    elif found.jobs:
        print_job_list(found.jobs, make_console())
    else:
        click.echo("There are no jobs yet. Submit one: dermq submit FOLDER")


@click.command(short_help="Follow the progress of a job.")
@click.argument("job", type=JOB_NUMBER, required=False)
def watch(job: int | None) -> None:
    """Follow the progress of JOB, or of the newest job, until it is finished, paused or cancelled.

    Exit status 0: the job is finished; 1: it stopped before that.
    """
    from db.status import JobStatus
    from worker.monitor.job_status import find_job
    from worker.monitor.summary import print_summary

    database = open_checked_database()
    stopped = watch_job(database, find_job(database, job).id)
    print_summary(database, stopped, make_console())
    sys.exit(0 if stopped.status is JobStatus.FINISHED else 1)
