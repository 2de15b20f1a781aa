"""The operator's commands on jobs that exist: pause, resume, cancel, retry, delete, reconcile, and the audit log."""

import os
import pwd
import re
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from db.status import FailureCode, JobStatus
from worker.errors import DermqError
from worker.settings import load_settings

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine


class _JobNumber(click.IntRange):
    name = "job number"


#: What a database can have numbered a job.
JOB_NUMBER = _JobNumber(1, 2**63 - 1)


def current_actor() -> str:
    """Account and host of whoever runs this command, for the audit log."""
    number = os.getuid()
    try:
        # Not `getpass.getuser`, which believes the environment.
        account = pwd.getpwuid(number).pw_name
    except KeyError:
        account = f"uid {number}"
    return f"{account}@{socket.gethostname()}"


def open_checked_database() -> "Engine":
    """The database, if it is there and has the right schema.

    Raises:
        DermqError: it is not, with what to do.
    """
    from db.session import open_database
    from worker.monitor.health import require_database

    settings = load_settings()
    require_database(settings)
    return open_database(settings.resolved_database_url())


def _change(job: int, move: "Callable[[Connection, int, str], bool]", refusal: str) -> None:
    """Do something to a job, or say in which status it would have been possible."""
    from db.session import transact
    from worker.monitor.job_status import find_job

    database = open_checked_database()
    found = find_job(database, job)
    if not transact(database, lambda connection: move(connection, job, current_actor())):
        raise DermqError(f"Job {job} is {found.status}. {refusal}")


@click.command()
@click.argument("job", type=JOB_NUMBER)
def pause(job: int) -> None:
    """Stop handing out the chunks of JOB; workers leave it at their next batch."""
    from db.job_control import pause_job

    _change(job, lambda c, j, actor: pause_job(c, j, actor=actor), "Expected: a job that is queued or running.")
    click.echo(f"Job {job} is paused. Go on with: dermq resume {job}")


@click.command()
@click.argument("job", type=JOB_NUMBER)
def resume(job: int) -> None:
    """Let a paused JOB go on."""
    from db.job_control import resume_job

    _change(job, lambda c, j, actor: resume_job(c, j, actor=actor), "Expected: a job that is paused.")
    click.echo(f"Job {job} goes on.")


@click.command()
@click.argument("job", type=JOB_NUMBER)
def cancel(job: int) -> None:
    """Give JOB up; what was scored stays and can be exported."""
    from db.job_control import cancel_job

    _change(job, lambda c, j, actor: cancel_job(c, j, actor=actor), "Expected: a job that has not ended.")
    click.echo(f"Job {job} is cancelled.")


@click.command()
@click.argument("job", type=JOB_NUMBER)
@click.option("--failed", is_flag=True, help="Nothing else is ever tried again, so this may be left out.")
@click.option(
    "--code", "codes", multiple=True, type=click.Choice([code.value for code in FailureCode]), help="Only these."
)
def retry(job: int, failed: bool, codes: tuple[str, ...]) -> None:
    """Have the failed images of JOB tried again, for example once a share is mounted or a file repaired.

    \b
    dermq retry 7 --code missing --code unreadable
    """
    from db.job_control import retry_failed
    from db.session import transact
    from worker.monitor.job_status import find_job

    database = open_checked_database()
    found = find_job(database, job)
    wanted = [FailureCode(code) for code in codes] or None
    retried = transact(database, lambda c: retry_failed(c, job, codes=wanted, actor=current_actor()))
    if retried is None:
        raise DermqError(f"Job {job} is {found.status}. Expected: a job that is finished, queued or running.")
    if not retried.images and not retried.left:
        click.echo(f"Job {job} has no failed images{' with these codes' if codes else ''}; nothing is tried again.")
        return
    count = f"1 image of job {job} is" if retried.images == 1 else f"{retried.images:,} images of job {job} are"
    click.echo(f"{count} to be tried again: `dermq watch {job}` shows how they do.")
    if retried.left:
        click.echo(
            f"WARNING: {retried.left:,} failed images are in chunks that a worker has in hand. Retry again when "
            "the job is finished.",
            err=True,
        )


def _agrees(question: str) -> bool:
    """Whether the person says yes; nobody there to be asked is a no."""
    try:
        return click.confirm(question)
    except click.Abort:
        return False


@click.command()
@click.argument("job", type=JOB_NUMBER)
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete(job: int, yes: bool) -> None:
    """Remove JOB with its images, predictions and patient data; the audit log keeps that it was.

    The exit status is 1 when they are gone from the database but not yet from its log, because somebody reads it.
    """
    from db.job_control import delete_job
    from db.session import empty_write_ahead_log
    from worker.monitor.job_status import find_job

    database = open_checked_database()
    find_job(database, job)
    if not (yes or _agrees(f"Remove job {job} with all its outcomes and patient references for good?")):
        # Not 1, which says that it is gone from the database and not yet from SQLite's log.
        raise DermqError(f"Job {job} was not deleted.")
    refusal = "Expected: a job that is finished or cancelled; `dermq cancel` it first."
    _change(job, lambda c, j, actor: delete_job(c, j, actor=actor), refusal)
    click.echo(f"Job {job} is deleted.")
    if not empty_write_ahead_log(database):
        click.echo(
            "WARNING: somebody reads the database, an export or a watch, or a stopped process holds its log, so that "
            "what was deleted still stands in the file beside it that ends in -wal. After that "
            "`dermq migrate` takes it away.",
            err=True,
        )
        sys.exit(1)


@click.command()
@click.argument("job", type=JOB_NUMBER)
def reconcile(job: int) -> None:
    """Prove the books of JOB: every image has exactly one end with all that belongs to it.

    Exit status 1 if not, and while images wait, unless the job was cancelled.
    """
    from db.progress import count_statuses
    from db.reconciliation import faults_of, orphans
    from db.session import read
    from worker.monitor.job_status import find_job, outcome_counts

    database = open_checked_database()
    found = find_job(database, job)
    faults = read(database, lambda c: faults_of(c, job) + orphans(c))
    counts = read(database, lambda c: count_statuses(c, job))
    waiting = counts.submitted - counts.ended
    click.echo(
        f"Job {job} {found.status}: {counts.submitted:,} submitted = {outcome_counts(counts)}, {waiting:,} waiting"
    )
    for fault in faults:
        click.echo(f"FAIL  {fault}")
    if faults:
        sys.exit(1)
    cancelled = found.status is JobStatus.CANCELLED
    if waiting and not cancelled:
        click.echo(
            f"open  {waiting:,} images have not ended; nothing is wrong so far. Ask again when the job is finished"
        )
        sys.exit(1)
    click.echo("ok    the books are right" + (f"; {waiting:,} images were cancelled" if waiting else ""))


@click.group()
def audit() -> None:
    """The audit log: who did what to which job."""


@audit.command("verify")
@click.option("--head", help="Head that an earlier verification printed; it must still be in the log.")
def audit_verify(head: str | None) -> None:
    """Walk the whole log; exit status 1 when an entry was changed, removed or put in.

    Keep the head that is printed somewhere else, and give it to the next verification: who can write to the database
    can cut the log off at its end, or write the whole chain anew.

    \b
    dermq audit verify --head 5f0c…
    """
    from db.audit import verify
    from db.session import read

    if head is not None and not re.fullmatch("[0-9a-f]{64}", head):
        raise DermqError(
            f"Received: --head {head}. Expected: a whole head, 64 hexadecimal digits, as this command prints it."
        )
    verdict = read(open_checked_database(), lambda connection: verify(connection, head=head))
    for fault in verdict.faults:
        click.echo(f"FAIL  {fault}")
    click.echo(f"{'FAIL' if verdict.faults else 'ok  '}  {verdict.entries:,} entries, head {verdict.head}")
    if verdict.faults:
        sys.exit(1)


@audit.command("list")
@click.argument("job", type=JOB_NUMBER, required=False)
def audit_list(job: int | None) -> None:
    """Print the entries, of JOB or all."""
    from db.audit import entries_of
    from db.session import read

    entries = list(read(open_checked_database(), lambda c: list(entries_of(c, job))))
    if job is not None and not entries:
        # Of a job that was deleted the log keeps every entry.
        raise DermqError(f"The audit log has no entry of job {job}: there never was one of this number.")
    for entry in entries:
        about = f"job {entry.job_id}" if entry.job_id is not None else "-"
        when = f"{entry.at:%Y-%m-%d %H:%M:%S}"
        click.echo(f"{entry.number:>6}  {when}  {about:<9} {entry.action:<10} {entry.actor}  {entry.detail}")


COMMANDS: tuple[click.Command, ...] = (pause, resume, cancel, retry, delete, reconcile, audit)
