"""Commands that act on jobs: pause, resume, cancel, retry, delete, prune."""

import sys
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from db.status import FailureCode
from worker.cli.session import JOB_NUMBER, current_actor, open_checked_database
from worker.errors import DermqError
from worker.terminal import image_progress

if TYPE_CHECKING:
    from sqlalchemy import Engine

    #: Takes the connection and the job, and `actor` and `request` by name. Returns whether the change was possible.
    Change = Callable[..., bool]


class _Request:
    """One command of one person. The id tells a transaction that runs again from a second command."""

    def __init__(self) -> None:
        self.actor, self.id = current_actor(), uuid.uuid4().hex


def _change(job: int, change: "Change", expected: str) -> None:
    """Change a job, or explain in which state that would be possible."""
    from db.session import transact
    from worker.monitor.job_status import find_job

    database = open_checked_database()
    found = find_job(database, job)
    request = _Request()
    if not transact(database, lambda connection: change(connection, job, actor=request.actor, request=request.id)):
        raise DermqError(f"Job {job} is {found.status}. {expected}")


@click.command(short_help="Pause a job.")
@click.argument("job", type=JOB_NUMBER)
def pause(job: int) -> None:
    """Pause JOB. Workers leave it at their next batch."""
    from db.job_control import pause_job

    _change(
        job,
        pause_job,
        "Only a queued or running job can be paused.",
    )
    click.echo(f"Job {job} is paused. Resume it with: dermq resume {job}")


@click.command(short_help="Resume a paused job.")
@click.argument("job", type=JOB_NUMBER)
def resume(job: int) -> None:
    """Resume the paused JOB."""
    from db.job_control import resume_job

    _change(
        job,
        resume_job,
        "Only a paused job can be resumed.",
    )
    click.echo(f"Job {job} is resumed.")


@click.command(short_help="Cancel a job; its outcomes so far are kept.")
@click.argument("job", type=JOB_NUMBER)
def cancel(job: int) -> None:
    """Cancel JOB. Its outcomes so far are kept and can be exported."""
    from db.job_control import cancel_job

    _change(
        job,
        cancel_job,
        "Only an open job can be cancelled.",
    )
    click.echo(f"Job {job} is cancelled.")


@click.command(short_help="Score the failed images of a job again.")
@click.argument("job", type=JOB_NUMBER)
@click.option(
    "--code",
    "codes",
    multiple=True,
    type=click.Choice([code.value for code in FailureCode]),
    metavar="CODE",
    help="Only images with this failure code, as `dermq status JOB` shows it. May be repeated.",
)
def retry(job: int, codes: tuple[str, ...]) -> None:
    """Score the failed images of JOB again, for example after a share was mounted or a file repaired.

    \b
    dermq retry 7 --code missing --code unreadable
    """
    from db.job_control import retry_failed
    from db.session import transact
    from worker.monitor.job_status import find_job

    database = open_checked_database()
    found = find_job(database, job)
    wanted = [FailureCode(code) for code in codes] or None
    request = _Request()
    result = transact(
        database,
        lambda connection: retry_failed(connection, job, codes=wanted, actor=request.actor, request=request.id),
    )
    if result is None:
        raise DermqError(f"Job {job} is {found.status}. Only a finished, queued or running job can be retried.")
    if not result.images and not result.skipped:
        click.echo(f"Job {job} has no failed images{' with these codes' if codes else ''}.")
        return
    count = "1 failed image" if result.images == 1 else f"{result.images:,} failed images"
    click.echo(f"Retrying {count} of job {job}. Follow it with: dermq watch {job}")
    if result.skipped:
        click.echo(
            f"WARNING: {result.skipped:,} failed images are in chunks that a "
            "worker has. Retry again when the job is finished.",
            err=True,
        )


def _confirms(question: str) -> bool:
    """Whether the person agrees. Without a person to ask, the answer is no."""
    try:
        return click.confirm(question)
    except click.Abort:
        return False


@click.command(short_help="Delete a job with all its data.")
@click.argument("job", type=JOB_NUMBER)
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete(job: int, yes: bool) -> None:
    """Delete JOB with its images, predictions and patient data. The audit log is kept.

    Other jobs keep working meanwhile. If the command is interrupted, run it again: it finishes the deletion.

    Exit status 1: the rows are deleted, but still readable in SQLite's log, because another process reads it.
    """
    from db.deletion import begin_deletion
    from worker.monitor.job_status import find_job

    database = open_checked_database()
    find_job(database, job)
    if not (yes or _confirms(f"Delete job {job} with all its outcomes and patient references?")):
        # Not exit status 1, which means that the job is deleted.
        raise DermqError(f"Job {job} was not deleted.")
    expected = f"Only a finished or cancelled job can be deleted. Run `dermq cancel {job}` first."
    _change(job, begin_deletion, expected)
    _delete_rows(database, job, again=f"dermq delete {job}")
    click.echo(f"Job {job} is deleted.")
    _empty_log(database)


@click.command(short_help="Delete all jobs older than a number of days.")
@click.option(
    "--older-than",
    "days",
    type=click.IntRange(1, 36_500),
    required=True,
    metavar="DAYS",
    help="Jobs that finished or were cancelled more than so many days ago.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def prune(days: int, yes: bool) -> None:
    """Delete the finished and cancelled jobs that are older than a number of days. The audit log is kept.

    It also finishes deletions that were interrupted. Export first what must be kept.

    \b
    dermq prune --older-than 365

    Exit status 1: the rows are deleted, but still readable in SQLite's log, because another process reads it.
    """
    from db.deletion import begin_deletion, jobs_to_prune
    from db.session import read, transact

    database = open_checked_database()
    jobs = read(database, lambda connection: jobs_to_prune(connection, days))
    if not jobs:
        click.echo(f"No job is older than {days} days.")
        return
    if not (yes or _confirms(f"Delete {_counted(jobs)} with all outcomes and patient references?")):
        raise DermqError("Nothing was deleted.")
    request = _Request()
    deleted = []
    for job in jobs:
        begun = transact(
            database,
            lambda connection, job=job: begin_deletion(  # type: ignore[misc]
                connection, job, actor=request.actor, request=request.id, older_than_days=days
            ),
        )
        if begun:
            # Else it was retried or deleted since the question.
            _delete_rows(database, job, again=f"dermq prune --older-than {days}")
            deleted.append(job)
    click.echo(f"Deleted {_counted(deleted)}.")
    _empty_log(database)


def _counted(jobs: list[int]) -> str:
    return f"{len(jobs)} job{'s' if len(jobs) != 1 else ''}" + (f" ({_listed(jobs)})" if jobs else "")


def _listed(jobs: list[int]) -> str:
    shown = ", ".join(map(str, jobs[:10]))
    return f"{shown} and {len(jobs) - 10} more" if len(jobs) > 10 else shown


def _delete_rows(database: "Engine", job: int, *, again: str) -> None:
    """Delete the rows of a job, with a progress bar on a terminal."""
    from db.deletion import delete_rows
    from db.progress import count_jobs
    from db.session import read

    images = read(database, lambda connection: count_jobs(connection, [job]))[job].submitted
    try:
        with image_progress(f"deleting job {job}", images) as shown:
            delete_rows(database, job, shown)
    except KeyboardInterrupt:
        click.echo(f"Job {job} is deleted in part. To finish, run: {again}", err=True)
        raise


def _empty_log(database: "Engine") -> None:
    """Remove deleted rows from SQLite's log, too; exit with status 1 when that is not possible now."""
    from db.session import empty_write_ahead_log

    if not empty_write_ahead_log(database):
        click.echo(
            "WARNING: another process reads the database or is stopped, so the deleted rows are still in the file "
            "beside it that ends in -wal. Run `dermq migrate` when that process has ended.",
            err=True,
        )
        sys.exit(1)
