"""``dermq export``: the outcomes of a job as CSV, JSON Lines or Parquet."""

import errno
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from db.status import AuditAction, JobStatus
from worker.cli.session import JOB_NUMBER, current_actor, open_checked_database
from worker.errors import DermqError, OutputError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from worker.output.rows import Written

#: What happens to waiting images and what to do, for jobs that workers do not score at the moment.
_WAITING_IMAGES = {
    JobStatus.PAUSED: "are waiting and have no outcome. `dermq resume {job}` continues the job",
    JobStatus.CANCELLED: "were not scored before the job was cancelled. A human must look, or submit them again",
}
_STILL_RUNNING = "are waiting and have no outcome yet. Follow the job with `dermq watch {job}`"


@click.command(short_help="Write the outcomes of a job as CSV, JSON Lines or Parquet.")
@click.argument("job", type=JOB_NUMBER)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="File to write. Default: standard output."
)
@click.option("--ranked", is_flag=True, help="As a worklist: images without a score first, then by probability.")
@click.option("--worklist", is_flag=True, help="For people: ranked by lesion, few columns, room for findings.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["csv", "jsonl", "parquet"]),
    default="csv",
    show_default=True,
    help="Of the file.",
)
def export(job: int, output: Path | None, ranked: bool, worklist: bool, kind: str) -> None:
    """Write the outcome of every image of JOB, in the order of submission or as a ranked worklist.

    \b
    dermq export 7 > outcomes.csv
    dermq export 7 --ranked -o worklist.csv
    dermq export 7 --worklist -o for-the-clinic.csv
    dermq export 7 --format parquet -o outcomes.parquet

    With --ranked, images without a score come first: a human must look at them. Then come the scored images, the
    highest probability first, and the column rank counts them from 1. Images without an outcome yet come last.
    docs/worklist.md explains the columns.

    With -o, the file appears only when it is complete. Standard error says how many images have no outcome yet.
    """
    from db.audit import append_entry
    from db.jobs import view_jobs
    from db.progress import count_jobs
    from db.session import read, transact
    from db.worklist import outcomes_by_image, outcomes_ranked
    from worker.atomic_files import replace_file
    from worker.monitor.job_status import find_job
    from worker.output.atomic_stream import open_output
    from worker.output.csv import write_csv, write_worklist_csv
    from worker.output.jsonl import write_jsonl
    from worker.output.parquet import write_parquet

    if worklist and kind != "csv":
        raise click.UsageError("--worklist is a CSV. Leave out --format.")
    if kind == "parquet" and (output is None or (output.exists() and not output.is_file())):
        raise click.UsageError("A Parquet file cannot be a stream. Name a file with -o.")
    database = open_checked_database()
    if find_job(database, job).status is JobStatus.DELETING:
        raise DermqError(f"Job {job} is being deleted, so it cannot be exported any more.")

    def record(**detail: object) -> None:
        transact(
            database,
            lambda connection: append_entry(
                connection, actor=current_actor(), action=AuditAction.EXPORTED, job_id=job, detail=detail
            ),
        )

    if output is not None and not output.resolve().parent.is_dir():
        raise OutputError(f"There is no folder {output.resolve().parent} to write into. Make it, or name another file.")
    # Before the first row leaves: a reader that stops half way has read half of it all the same.
    images = read(database, lambda connection: count_jobs(connection, [job]))[job].submitted
    record(images=images)
    terminal = output is None and sys.stdout.isatty()

    def write(connection: "Connection", target: "TextIO | Path") -> "tuple[Written, JobStatus | None]":
        # In the same snapshot, so that the status belongs to these rows.
        status = next((view.status for view in view_jobs(connection, job_id=job)), None)
        cancelled = status is JobStatus.CANCELLED
        in_order = ranked or worklist
        rows = outcomes_ranked(connection, job, cancelled=cancelled) if in_order else outcomes_by_image(connection, job)
        if isinstance(target, Path):
            return write_parquet(rows, target, ranked=ranked, cancelled=cancelled), status
        if worklist:
            return write_worklist_csv(rows, target, cancelled=cancelled), status
        if kind == "jsonl":
            return write_jsonl(rows, target, ranked=ranked, cancelled=cancelled), status
        return write_csv(rows, target, ranked=ranked, cancelled=cancelled, terminal=terminal), status

    try:
        if kind == "parquet" and output is not None:
            with replace_file(output.resolve()) as unfinished:
                written, status = read(database, lambda connection: write(connection, unfinished))
        else:
            with open_output(output) as out:

                def write_text(connection: "Connection") -> "tuple[Written, JobStatus | None]":
                    out.restart()
                    return write(connection, out.text)

                written, status = read(database, write_text)
                out.text.flush()
    except BrokenPipeError as error:
        # The reader has stopped, as `head` does. That is no error.
        record(images=images, failed=error.strerror)
        return
    except OSError as error:
        record(images=images, failed=error.strerror)
        where = output or "standard output"
        kept = " The earlier file is unchanged." if output is not None and output.is_file() else ""
        raise OutputError(
            f"Job {job} could not be exported to {where}: {error.strerror}.{kept} {_advice(error.errno)}."
        ) from None
    one = written.not_scored == 1
    first = (
        f", the first{'' if one else f' {written.not_scored:,}'} without a score: a human must look"
        if (ranked or worklist) and written.not_scored
        else ""
    )
    click.echo(f"{written.images:,} image{'s' if written.images != 1 else ''} of job {job}{first}.", err=True)
    if status is not None:
        for warning in _warnings(job, status, written):
            click.echo(f"WARNING: {warning}", err=True)


def _advice(number: int | None) -> str:
    """What helps against an error of writing."""
    if number in (errno.ENOSPC, errno.EDQUOT):
        return "Free some space or name another file with -o, then export again"
    if number == errno.ENOENT:
        return "Make the folder or name another file with -o, then export again"
    return "Name another file with -o, then export again"


def _warnings(job: int, status: JobStatus, written: "Written") -> list[str]:
    """What the export does not contain."""
    warnings = []
    if status is JobStatus.SUBMITTING:
        warnings.append(f"job {job} is still being submitted, so images are missing.")
    if written.waiting:
        what = _WAITING_IMAGES.get(status, _STILL_RUNNING).format(job=job)
        warnings.append(f"job {job} is {status}: {written.waiting:,} of these {written.images:,} images {what}.")
    return warnings
