"""Commands that act on jobs: pause, resume, cancel, retry, delete, prune."""

import sys
import uuid
from typing import TYPE_CHECKING

import click

from db.status import FailureCode
from worker.cli.session import JOB_NUMBER, current_actor, open_checked_database
from worker.errors import DermqError
from worker.terminal import image_progress

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from worker.monitor.actions import Action, ActionOutcome


class _Request:
    """One command of one person. The id tells a transaction that runs again from a second command."""

    def __init__(self) -> None:
        self.actor, self.id = current_actor(), uuid.uuid4().hex


def _carry_out(action: "Action", job: int, codes: "list[FailureCode] | None" = None) -> "ActionOutcome":
    """Change a job, or explain in which state that would be possible."""
    from worker.monitor.actions import carry_out

    outcome = carry_out(open_checked_database(), action, job, actor=current_actor(), codes=codes or ())
    if not outcome.possible:
        raise DermqError(outcome.text)
    return outcome


@click.command(short_help="Pause a job.")
@click.argument("job", type=JOB_NUMBER)
def pause(job: int) -> None:
    """Pause JOB. Workers leave it at their next batch."""
    _carry_out("pause", job)
    click.echo(f"Job {job} is paused. Resume it with: dermq resume {job}")


@click.command(short_help="Resume a paused job.")
@click.argument("job", type=JOB_NUMBER)
def resume(job: int) -> None:
    """Resume the paused JOB."""
    click.echo(_carry_out("resume", job).text)


@click.command(short_help="Cancel a job; its outcomes so far are kept.")
@click.argument("job", type=JOB_NUMBER)
def cancel(job: int) -> None:
    """Cancel JOB. Its outcomes so far are kept and can be exported."""
    click.echo(_carry_out("cancel", job).text)


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
    outcome = _carry_out("retry", job, [FailureCode(code) for code in codes])
    click.echo(f"{outcome.text} Follow it with: dermq watch {job}" if outcome.done else outcome.text)
    if outcome.skipped:
        click.echo(
            f"WARNING: {outcome.skipped:,} failed images are in chunks that a "
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
    from db.session import transact
    from worker.monitor.job_status import find_job

    database = open_checked_database()
    found = find_job(database, job)
    if not (yes or _confirms(f"Delete job {job} with all its outcomes and patient references?")):
        # Not exit status 1, which means that the job is deleted.
        raise DermqError(f"Job {job} was not deleted.")
    request = _Request()
    if not transact(database, lambda c: begin_deletion(c, job, actor=request.actor, request=request.id)):
        raise DermqError(
            f"Job {job} is {found.status}. Only a finished or cancelled job can be deleted. Run `dermq cancel {job}` "
            "first."
        )
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
