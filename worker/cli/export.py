"""``dermq export``: the outcomes of a job as CSV, JSON Lines, Parquet or FHIR, or as DICOM reports."""

import errno
import re
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from db.status import AuditAction, JobStatus
from worker.cli.session import JOB_NUMBER, current_actor, open_checked_database, tidied_when_ended
from worker.errors import DermqError, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

    from db.jobs import JobView
    from db.worklist import OutcomeRow
    from worker.output.rows import Written

#: What happens to waiting images and what to do, for jobs that workers do not score at the moment.
_WAITING_IMAGES = {
    JobStatus.PAUSED: "are waiting and have no outcome. `dermq resume {job}` continues the job",
    JobStatus.CANCELLED: "were not scored before the job was cancelled. A human must look, or submit them again",
}
#: Rows read together for DICOM reports.
_PAGE = 500
_STILL_RUNNING = "are waiting and have no outcome yet. Follow the job with `dermq watch {job}`"


@click.command(short_help="Write the outcomes of a job: CSV, JSON Lines, Parquet, FHIR, DICOM.")
@click.argument("job", type=JOB_NUMBER)
@click.option("-o", "--output", help="File to write, or s3://BUCKET/FILE. Default: standard output.")
@click.option("--ranked", is_flag=True, help="As a worklist: images without a score first, then by probability.")
@click.option("--worklist", is_flag=True, help="For people: ranked by lesion, few columns, room for findings.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["csv", "jsonl", "parquet", "fhir", "dicom-sr"]),
    default="csv",
    show_default=True,
    help="dicom-sr writes a folder.",
)
@click.option("--with-references", is_flag=True, help="FHIR with patient references. The audit log says so.")
@click.option(
    "--patient-system",
    metavar="URI",
    help="FHIR system of the patient references, such as urn:oid:2.999.1. Default: dermq's own.",
)
@click.option("--stow", metavar="URL", help="Send the DICOM reports to this PACS, such as https://pacs/dicom-web.")
def export(
    job: int,
    output: str | None,
    ranked: bool,
    worklist: bool,
    kind: str,
    with_references: bool,
    patient_system: str | None,
    stow: str | None,
) -> None:
    """Write the outcome of every image of JOB, in the order of submission or as a ranked worklist.

    \b
    dermq export 7 > outcomes.csv
    dermq export 7 --ranked -o worklist.csv
    dermq export 7 --worklist -o for-the-clinic.csv
    dermq export 7 --format parquet -o s3://results/outcomes.parquet
    dermq export 7 --format fhir --with-references -o outcomes.ndjson
    dermq export 7 --format dicom-sr --stow https://pacs/dicom-web

    With --ranked, images without a score come first: a human must look at them. Then come the scored images, the
    highest probability first, and the column rank counts them from 1. Images without an outcome yet come last.
    docs/worklist.md explains the columns, FHIR and DICOM reports. Nothing is final: everything says "not reviewed".

    With -o, the file appears only when it is complete. Standard error says how many images have no outcome yet.
    """
    from db.audit import append_entry
    from db.progress import count_jobs
    from db.session import read, transact
    from worker.monitor.job_status import find_job

    _refuse_what_does_not_fit(output, kind, ranked=ranked, worklist=worklist, references=with_references, stow=stow)
    _refuse_system(patient_system, references=with_references)
    database = open_checked_database()
    view = find_job(database, job)
    if view.status is JobStatus.DELETING:
        raise DermqError(f"Job {job} is being deleted, so it cannot be exported any more.")

    def record(**detail: object) -> None:
        transact(
            database,
            lambda connection: append_entry(
                connection, actor=current_actor(), action=AuditAction.EXPORTED, job_id=job, detail=detail
            ),
        )

    with tidied_when_ended(), ExitStack() as stack:
        target = None if output is None else Path(output)
        if output is not None and "://" in output:
            from worker.output.remote_target import put_when_complete

            target = stack.enter_context(put_when_complete(output, folder=kind == "dicom-sr"))
        if target is not None and not target.resolve().parent.is_dir():
            raise OutputError(
                f"There is no folder {target.resolve().parent} to write into. Make it, or name another file."
            )
        # Before the first row leaves: a reader that stops half way has read half of it all the same.
        images = read(database, lambda connection: count_jobs(connection, [job]))[job].submitted
        further = {"references": True} if with_references else {}
        record(
            images=images, **({"format": kind} if kind != "csv" else {}), **further, **({"pacs": stow} if stow else {})
        )
        if kind == "dicom-sr":
            lines = _export_reports(database, view, target, output, stow)
        else:
            try:
                written, status = _write(
                    database, view, target, kind, ranked, worklist, with_references, patient_system
                )
            except BrokenPipeError as error:
                # The reader has stopped, as `head` does. That is no error.
                record(images=images, failed=error.strerror)
                return
            except OSError as error:
                record(images=images, failed=error.strerror)
                where = output or "standard output"
                kept = " The earlier file is unchanged." if target is not None and target.is_file() else ""
                raise OutputError(
                    f"Job {job} could not be exported to {where}: {error.strerror}.{kept} {_advice(error.errno)}."
                ) from None
            lines = _summary(job, status, written, first=ranked or worklist)
    # When it is where it belongs.
    for line in lines:
        click.echo(line, err=True)


def _refuse_what_does_not_fit(
    output: str | None, kind: str, *, ranked: bool, worklist: bool, references: bool, stow: str | None
) -> None:
    if worklist and kind != "csv":
        raise click.UsageError("--worklist is a CSV. Leave out --format.")
    if references and kind != "fhir":
        raise click.UsageError("--with-references is for --format fhir: other formats name no patient, or always do.")
    if stow and "@" in stow.partition("://")[2].partition("/")[0]:
        raise click.UsageError(
            "The address of a PACS must not hold a name or a password: the audit log keeps it. Set DERMQ_DICOMWEB_USER "
            "and DERMQ_DICOMWEB_PASSWORD."
        )
    if stow and kind != "dicom-sr":
        raise click.UsageError("--stow sends DICOM reports. Add --format dicom-sr.")
    if kind == "dicom-sr":
        if ranked:
            raise click.UsageError("DICOM reports have no order. Leave out --ranked.")
        if (output is None) == (stow is None):
            raise click.UsageError("DICOM reports need a folder (-o FOLDER) or a PACS (--stow URL), one of the two.")
        if output is not None and "://" not in output and Path(output).exists():
            raise click.UsageError(f"{output} is there already. Name a new folder for the reports.")
    elif output is not None and "://" not in output and Path(output).is_dir():
        raise click.UsageError(f"{output} is a folder. Name a file.")
    if kind == "parquet" and (output is None or ("://" not in output and _is_stream(Path(output)))):
        raise click.UsageError("A Parquet file cannot be a stream. Name a file with -o.")


def _refuse_system(system: str | None, *, references: bool) -> None:
    if system is None:
        return
    if not references:
        raise click.UsageError("--patient-system names the system of patient references. Add --with-references.")
    # An absolute URI (FHIR R4, Identifier.system), not merely a name.
    if re.fullmatch(r"(https?://[^\s/]+\S*|urn:oid:[0-2](\.(0|[1-9]\d*))+|urn:(?!oid:)[\w-]+:\S+)", system) is None:
        raise click.UsageError(
            f"--patient-system {system!r} is no system of identifiers. Give an absolute URI, such as "
            "https://hospital.example/mrn or urn:oid: with the number of the registry."
        )


def _is_stream(path: Path) -> bool:
    return path.exists() and not path.is_file()


def _write(
    database: "Engine",
    view: "JobView",
    target: Path | None,
    kind: str,
    ranked: bool,
    worklist: bool,
    with_references: bool,
    patient_system: str | None,
) -> "tuple[Written, JobStatus | None]":
    """Write everything but DICOM reports, from one snapshot of the database."""
    from db.jobs import view_jobs
    from db.session import read
    from db.worklist import outcomes_by_image, outcomes_ranked, references_of
    from worker.atomic_files import replace_file
    from worker.output.atomic_stream import open_output
    from worker.output.csv import write_csv, write_worklist_csv
    from worker.output.fhir import write_fhir
    from worker.output.jsonl import write_jsonl
    from worker.output.parquet import write_parquet

    terminal = target is None and sys.stdout.isatty()

    def write(connection: "Connection", file: "TextIO | Path") -> "tuple[Written, JobStatus | None]":
        # In the same snapshot, so that the status belongs to these rows.
        status = next((each.status for each in view_jobs(connection, job_id=view.id)), None)
        cancelled = status is JobStatus.CANCELLED
        in_order = ranked or worklist
        rows = (
            outcomes_ranked(connection, view.id, cancelled=cancelled)
            if in_order
            else outcomes_by_image(connection, view.id)
        )
        if isinstance(file, Path):
            return write_parquet(rows, file, ranked=ranked, cancelled=cancelled), status
        if worklist:
            return write_worklist_csv(rows, file, cancelled=cancelled), status
        if kind == "jsonl":
            return write_jsonl(rows, file, ranked=ranked, cancelled=cancelled), status
        if kind == "fhir":
            look_up = (lambda ids: references_of(connection, ids)) if with_references else None
            return (
                write_fhir(
                    rows, file, job=view, cancelled=cancelled, references_of=look_up, patient_system=patient_system
                ),
                status,
            )
        return write_csv(rows, file, ranked=ranked, cancelled=cancelled, terminal=terminal), status

    if kind == "parquet" and target is not None:
        mode = target.resolve().stat().st_mode & 0o777 if target.exists() else None
        with replace_file(target.resolve()) as unfinished:
            result = read(database, lambda connection: write(connection, unfinished))
            if mode is not None:
                unfinished.chmod(mode)
            return result
    # With the references of patients a new file is for this user alone.
    with open_output(target, mode=0o600 if with_references else None) as out:

        def write_text(connection: "Connection") -> "tuple[Written, JobStatus | None]":
            out.restart()
            return write(connection, out.text)

        result = read(database, write_text)
        out.text.flush()
        return result


def _export_reports(
    database: "Engine", view: "JobView", target: Path | None, output: str | None, stow: str | None
) -> list[str]:
    """Write or send a report for each image that came as DICOM, and say what became of them."""
    from db.session import read
    from db.worklist import outcomes_after
    from worker.atomic_files import unfinished_folder
    from worker.images.read_any import reader_of
    from worker.monitor.job_status import find_job
    from worker.output.send_sr import Sent, make_reports, send_reports, write_reports
    from worker.settings import load_settings

    sent, reader, most = Sent(), reader_of(view.root), load_settings().max_file_bytes

    def rows() -> "Iterator[OutcomeRow]":
        # In short transactions: sending takes long, and the database must be able to tidy up meanwhile.
        page = read(database, lambda connection: outcomes_after(connection, view.id, 0, _PAGE))
        while page:
            yield from page
            last = page[-1].image_id
            page = read(database, partial(outcomes_after, job_id=view.id, image_id=last, limit=_PAGE))
        if find_job(database, view.id).status is JobStatus.DELETING:
            raise DermqError(f"Job {view.id} is being deleted, so its reports are incomplete.")

    reports = make_reports(
        rows(), reader, job=view, max_bytes=most, cancelled=view.status is JobStatus.CANCELLED, sent=sent
    )
    try:
        if stow is not None:
            send_reports(reports, stow, sent)
        elif target is not None:
            with unfinished_folder(target.resolve()) as folder:
                # They hold names of patients.
                (folder / "reports").mkdir(mode=0o700)
                write_reports(reports, folder / "reports", sent)
                if sent.written:
                    (folder / "reports").rename(target.resolve())
    except OSError as error:
        raise OutputError(f"The reports could not be written: {error.strerror}. {_advice(error.errno)}.") from None
    if not sent.written and not sent.there:
        why = "; ".join(f"{count:,} {reason}" for reason, count in sent.without.most_common()) or "it has no images"
        raise DermqError(
            f"No image of job {view.id} has a DICOM report: {why}. Reports are made of images that came as DICOM and "
            "have an outcome. For others use --format fhir or csv."
        )
    warning = (
        [f"WARNING: job {view.id} is still being submitted, so images are missing."]
        if view.status is JobStatus.SUBMITTING
        else []
    )
    there = f", {sent.there:,} were there already" if sent.there else ""
    return [
        f"{sent.written:,} reports {'sent' if stow else f'in {output}'}{there}.",
        *warning,
        *(
            f"WARNING: {count:,} images {reason}, so they have no report."
            for reason, count in sent.without.most_common()
        ),
    ]


def _advice(number: int | None) -> str:
    """What helps against an error of writing."""
    if number in (errno.ENOSPC, errno.EDQUOT):
        return "Free some space or name another file with -o, then export again"
    if number == errno.ENOENT:
        return "Make the folder or name another file with -o, then export again"
    return "Name another file with -o, then export again"


def _summary(job: int, status: JobStatus | None, written: "Written", *, first: bool) -> list[str]:
    """How many images were written, and what the export does not contain."""
    one = written.not_scored == 1
    unscored = f", the first{'' if one else f' {written.not_scored:,}'} without a score: a human must look"
    lines = [
        f"{written.images:,} image{'s' if written.images != 1 else ''} of job {job}"
        + (unscored if first and written.not_scored else "")
        + "."
    ]
    if status is JobStatus.SUBMITTING:
        lines.append(f"WARNING: job {job} is still being submitted, so images are missing.")
    if status is not None and written.waiting:
        what = _WAITING_IMAGES.get(status, _STILL_RUNNING).format(job=job)
        lines.append(f"WARNING: job {job} is {status}: {written.waiting:,} of these {written.images:,} images {what}.")
    return lines
