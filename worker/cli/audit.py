"""``dermq audit``: the audit log."""

import re
import sys

import click

from worker.cli.session import JOB_NUMBER, open_checked_database
from worker.errors import DermqError
from worker.terminal import printable


@click.group(short_help="Show or verify the audit log.")
def audit() -> None:
    """The audit log: who did what to which job."""


@audit.command("verify")
@click.option("--head", help="The head that an earlier verification printed. It must still be in the log.")
def audit_verify(head: str | None) -> None:
    """Check that no entry of the log was changed, removed or inserted.

    Keep the printed head in another place and pass it to the next verification: an account that can write to the
    database can remove the newest entries, or rewrite the whole chain.

    Exit status 1: something was changed.

    \b
    dermq audit verify --head 5f0c…
    """
    from db.audit import verify
    from db.session import read

    if head is not None and not re.fullmatch("[0-9a-f]{64}", head):
        raise DermqError(f"--head {printable(head)} is no head. Give all 64 hexadecimal digits that verify printed.")
    result = read(open_checked_database(), lambda connection: verify(connection, head=head))
    for fault in result.faults:
        click.echo(f"FAIL  {fault}")
    click.echo(f"{'FAIL' if result.faults else 'ok  '}  {result.entries:,} entries, head {result.head}")
    if result.faults:
        sys.exit(1)


@audit.command("list")
@click.argument("job", type=JOB_NUMBER, required=False)
def audit_list(job: int | None) -> None:
    """Print the entries of JOB, or of all jobs."""
    from db.audit import entries_of
    from db.session import read

    entries = list(read(open_checked_database(), lambda connection: list(entries_of(connection, job))))
    if job is not None and not entries:
        # The log keeps the entries of deleted jobs, too.
        raise DermqError(f"The audit log has no entry for job {job}: there never was such a job.")
    for entry in entries:
        about = f"job {entry.job_id}" if entry.job_id is not None else "-"
        when = f"{entry.at:%Y-%m-%d %H:%M:%S}"
        line = f"{entry.number:>6}  {when}  {about:<9} {entry.action:<10} {entry.actor}  {entry.detail}"
        click.echo(printable(line))
