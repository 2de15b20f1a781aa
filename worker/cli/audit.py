"""``dermq audit``: the audit log."""

import json
import re
import sys
from collections.abc import Mapping

import click

from worker.cli.session import JOB_NUMBER, open_checked_database
from worker.errors import DermqError
from worker.terminal import printable, shown_probability


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
    click.echo(f"{'number':>6}  {'time (UTC)':<19}  {'job':>6}  what was done, by whom")
    for entry in entries:
        about = str(entry.job_id) if entry.job_id is not None else ""
        detail = json.loads(entry.detail)
        # An export is logged when it begins, and once more when it fails.
        failed = f"the export failed: {detail['failed']}" if "failed" in detail else None
        done = failed or ", ".join([entry.action.value, *_in_words(detail)])
        line = f"{entry.number:>6}  {entry.at:%Y-%m-%d %H:%M:%S}  {about:>6}  {done}, by {entry.actor}"
        click.echo(printable(line))


def _in_words(detail: Mapping[str, object]) -> list[str]:
    """The details of an entry for a person. The id of the command is left out: it only serves the database."""
    words = []
    for key, value in detail.items():
        if key in ("images", "skipped"):
            words.append(f"{value:,} {'images' if key == 'images' else 'images left alone'}")
        elif key == "bundle_sha256":
            words.append(f"bundle {str(value)[:12]}")
        elif key == "threshold":
            words.append(f"threshold {shown_probability(float(str(value)))}")
        elif key == "codes":
            words.append("all failures" if value == "all" else " and ".join(map(str, value)))  # type: ignore[call-overload]
        elif key == "why":
            words.append(f"because {value}")
        elif key != "request":
            words.append(f"{key} {value}")
    return words
