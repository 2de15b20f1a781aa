"""``dermq export``: the outcomes of a job as a file or a stream, and a word about what is not in them."""

import errno
from pathlib import Path
from typing import TYPE_CHECKING

import click

from db.status import AuditAction, JobStatus
from worker.cli.job_control import JOB_NUMBER, current_actor, open_checked_database
from worker.errors import OutputError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from worker.output.csv import Written

#: What becomes of the images that wait, and what to do, by the status of their job; else they are worked on.
_WHAT_TO_DO = {
    JobStatus.PAUSED: "wait, and have no outcome until `dermq resume {job}` lets it go on",
    JobStatus.CANCELLED: "were never looked at: a human must look, or submit them again",
}
_WORKED_ON = "wait and have no outcome yet; `dermq watch {job}` says when it is finished"


@click.command()
@click.argument("job", type=JOB_NUMBER)
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="File to write; default: stdout.")
@click.option("--ranked", is_flag=True, help="As a worklist: what was not judged first, then the highest probability.")
def export(job: int, output: Path | None, ranked: bool) -> None:
    """Write the outcome of every image of JOB as CSV, in the order of submission or as a ranked worklist.

    \b
    dermq export 7 > outcomes.csv
    dermq export 7 --ranked > worklist.csv
    dermq export 7 -o outcomes.csv       replaces an older file only by a whole one

    With --ranked the images come first that nobody has judged, so that a human must look (failed, ungradable, waiting),
    then those with a probability, the highest first; the column rank counts these from 1.

    Standard error says how many images have no outcome, of a job that is not finished.
    """
    from db.audit import append_entry
    from db.jobs import JobView, view_jobs
    from db.session import read, transact
    from db.worklist import outcomes_by_image, outcomes_ranked
    from worker.monitor.job_status import find_job
    from worker.output.atomic_stream import draft_for
    from worker.output.csv import write_csv

    database = open_checked_database()
    find_job(database, job)

    def note(**detail: object) -> None:
        transact(
            database,
            lambda connection: append_entry(
                connection, actor=current_actor(), action=AuditAction.EXPORTED, job_id=job, detail=detail
            ),
        )

    try:
        with draft_for(output) as draft:

            def write(connection: "Connection") -> "tuple[Written, list[JobView]]":
                # A read that is tried again begins anew.
                draft.text.seek(0)
                draft.text.truncate()
                rows = (outcomes_ranked if ranked else outcomes_by_image)(connection, job)
                views = view_jobs(connection, job_id=job)
                cancelled = any(view.status is JobStatus.CANCELLED for view in views)
                return write_csv(rows, draft.text, ranked=ranked, cancelled=cancelled), views

            # One view of the database: the status is that of these very rows.
            written, found = read(database, write)
            draft.complete()
            # Before the first line leaves: whoever reads the half of it and breaks off has read it all the same.
            note(images=written.images)
            try:
                draft.publish()
            except OSError as error:
                note(images=written.images, failed=error.strerror)
                raise
    except BrokenPipeError:
        # Whoever reads has had enough, as `head` has: no fault of theirs, and nothing to say.
        return
    except OSError as error:
        where = output or "standard output"
        kept = " What stood there before stands there still." if output is not None and output.is_file() else ""
        raise OutputError(
            f"The export of job {job} could not be written to {where}: {error.strerror}.{kept} {_advice(error.errno)}, "
            "then export again."
        ) from None
    one = written.not_judged == 1
    first = (
        f", the first{'' if one else f' {written.not_judged:,}'} not judged: a human must look"
        if ranked and written.not_judged
        else ""
    )
    click.echo(f"{written.images:,} image{'s' if written.images != 1 else ''} of job {job}{first}.", err=True)
    for view in found:
        for warning in _warnings(job, view.status, written):
            click.echo(f"WARNING: {warning}", err=True)


def _advice(number: int | None) -> str:
    """What helps against an error of writing."""
    if number in (errno.ENOSPC, errno.EDQUOT):
        return "Make room or name another file with -o"
    if number == errno.ENOENT:
        return "Make its folder or name another file with -o"
    return "Name another file with -o"


def _warnings(job: int, status: JobStatus, written: "Written") -> list[str]:
    """What an export does not hold."""
    warnings = []
    if status is JobStatus.SUBMITTING:
        warnings.append(f"job {job} is still being taken in: images that were not taken in yet are missing.")
    if written.waiting:
        what = _WHAT_TO_DO.get(status, _WORKED_ON).format(job=job)
        warnings.append(f"job {job} is {status}: {written.waiting:,} of these {written.images:,} images {what}.")
    return warnings
