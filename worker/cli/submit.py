"""``dermq submit``: from an archive to a job."""

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from sqlalchemy.exc import SQLAlchemyError

from worker.cli.jobs import watch_jobs
from worker.cli.session import current_actor, open_checked_database
from worker.logging import configure_logging
from worker.settings import Settings, load_settings
from worker.terminal import make_console, printable

if TYPE_CHECKING:
    from rich.console import Console

    from worker.intake.sources.opened import OpenedSource
    from worker.intake.sources.passed_over import Selection

_LONGEST_LABEL = 100
_INTERRUPTED = "Interrupted. The images recorded so far are kept. Run the same `dermq submit` again to resume."


class _Source(click.Path):
    """An address, or a path that is not empty: an unset variable would otherwise mean the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from worker.images.read_remote import is_remote

        if not os.fspath(value):
            self.fail("The path is empty. Give a folder or a manifest; a dot is the current folder.", param, ctx)
        return value if isinstance(value, str) and is_remote(value) else super().convert(value, param, ctx)


def _label(_context: click.Context, _option: click.Parameter, text: str | None) -> str | None:
    """Check that a label is a line that a page and a terminal can show."""
    if text is None:
        return None
    text = text.strip()
    if not text or len(text) > _LONGEST_LABEL or not text.isprintable():
        raise click.BadParameter(f"Write one line of 1 to {_LONGEST_LABEL} characters that can be printed.")
    return text


def _hours(_context: click.Context, _option: click.Parameter, text: str | None) -> str | None:
    """Check that a text is a span of hours."""
    from db.hours import Hours

    try:
        if text is not None:
            Hours.parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return text


def _columns(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """Names of columns by dermq's own names."""
    from worker.intake.sources.manifest_columns import COLUMNS

    pairs = {}
    for text in given:
        ours, equals, theirs = text.partition("=")
        if not equals or not theirs.strip() or ours.strip() not in COLUMNS:
            raise click.BadParameter(
                f"{text!r}: write NAME=COLUMN, such as lesion_id=LesionID. NAME is one of {', '.join(COLUMNS)}."
            )
        pairs[ours.strip()] = theirs.strip()
    return pairs


@click.command(short_help="Submit a folder or a manifest as a job.")
@click.argument("source", type=_Source(path_type=Path))
@click.option("--root", type=click.Path(path_type=Path), help="Folder that a manifest's paths are relative to.")
@click.option("--policy", default="youden", show_default=True, help="Triage policy of the bundle.")
@click.option("--urgent", is_flag=True, help="Score it before bulk jobs.")
@click.option("--force", is_flag=True, help="Score files again that were scored earlier with the same bundle.")
@click.option("--name", callback=_label, help="Label of the job, shown wherever the job is. No patient data.")
@click.option("--between", "hours", metavar="HOURS", callback=_hours, help="Score it in these hours only: 20:00-06:00.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Leave out what fits, such as '*_overview.jpg'.")
@click.option("--include-hidden", is_flag=True, help="Submit hidden files and folders, too.")
@click.option("--strict", is_flag=True, help="Pictures that are not read, such as HEIC, become images, which fail.")
@click.option(
    "--column", "columns", multiple=True, metavar="NAME=COLUMN", callback=_columns, help="Column of a manifest."
)
@click.option("--dicomweb", is_flag=True, help="SOURCE is the address of a PACS with DICOMweb.")
@click.option("--query", multiple=True, metavar="ATTRIBUTE=VALUE", help="With --dicomweb: studies, as QIDO-RS has it.")
@click.option("--pseudonymise", is_flag=True, help="Store hashes of patient references (DERMQ_PSEUDONYM_KEY).")
@click.option("--dry-run", is_flag=True, help="List what would be submitted, and every problem; record nothing.")
@click.option("--watch", "then_watch", is_flag=True, help="Show the progress until the job is finished.")
def submit(
    source: Path | str,
    root: Path | None,
    policy: str,
    urgent: bool,
    force: bool,
    name: str | None,
    hours: str | None,
    exclude: tuple[str, ...],
    include_hidden: bool,
    strict: bool,
    columns: dict[str, str],
    dicomweb: bool,
    query: tuple[str, ...],
    pseudonymise: bool,
    dry_run: bool,
    then_watch: bool,
) -> None:
    """Submit SOURCE as a job: a folder, a manifest, a ZIP or TAR archive, or an address (s3://, gs://, https://).

    A manifest is CSV, an Excel workbook or Parquet. It has the column path, and optionally lesion_id, patient_ref, age,
    sex and site. The metadata files of ISIC and HAM10000 are read as they are; --column names other columns.

    \b
      dermq submit /archive/2019
      dermq submit cases.csv --root /archive --urgent --watch
      dermq submit /archive --name "Archive 1998-2004" --between 20:00-06:00
      dermq submit export.zip --exclude '*_overview.jpg'
      dermq submit s3://bucket/2019
      dermq submit https://pacs/dicom-web --dicomweb --query StudyDate=20190101-20191231
      dermq submit cases.xlsx --root /archive --column lesion_id=LesionID --dry-run

    The hours of --between are in the time zone of DERMQ_TIME_ZONE, or of this machine.

    When standard output is not a terminal, it gets the job number alone. Everything else goes to standard error.

    Exit status 1: a folder could not be read, a row has no path, or no path of a manifest leads to a file inside its
    root, or, with --watch, the job stopped before it was finished.
    """
    from db.hours import Hours
    from db.status import JobStatus
    from worker.inference.bundle import load_bundle
    from worker.intake.sources.dicomweb import dicomweb_root
    from worker.intake.sources.opened import open_source
    from worker.intake.sources.passed_over import Selection
    from worker.intake.submission import Submission, submit
    from worker.monitor.summary import print_summary
    from worker.queue.app import make_app

    settings = load_settings()
    console = make_console(stderr=True)
    if dicomweb:
        source = dicomweb_root(str(source), query)
    elif query:
        raise click.UsageError("--query belongs to --dicomweb.")
    if dicomweb and pseudonymise:
        raise click.UsageError("--pseudonymise cannot be used with --dicomweb: the paths of a PACS name the study.")
    selection = Selection(exclude=exclude, include_hidden=include_hidden, strict=strict)
    if pseudonymise and settings.pseudonym_key is None:
        raise click.UsageError("--pseudonymise needs DERMQ_PSEUDONYM_KEY, a secret of at least 16 characters.")
    if dry_run:
        load_bundle(settings.resolved_bundle()).thresholds(policy)
        _dry_run(open_source(source, root, selection, columns), selection, console)
        return
    database = open_checked_database()
    resting = hours is not None and not Hours.parse(hours).include(settings.local_time().time())
    submission = Submission(
        source=source,
        root=root,
        policy=policy,
        urgent=urgent,
        chunk_size=settings.chunk_size,
        lease_seconds=settings.lease_seconds,
        force=force,
        name=name,
        hours=hours,
        resting=resting,
        selection=selection,
        columns=columns,
        pseudonym_key=settings.pseudonym_key.get_secret_value() if pseudonymise and settings.pseudonym_key else None,
        actor=current_actor(),
    )
    configure_logging(settings)

    job_ids: list[int] = []
    status = console.status("recording images …")

    def tell(job: int) -> None:
        job_ids.append(job)
        # Otherwise the number would be printed behind the spinner.
        status.stop()
        if not sys.stdout.isatty():
            # A closed pipe or a full disk is no reason to fail: the notes name the job too.
            with contextlib.suppress(OSError):
                click.echo(job)

    def leave(number: int, _frame: object) -> None:
        # At once, as a kill would: an exception raised here is lost when it interrupts a finaliser.
        with contextlib.suppress(OSError):
            os.write(2, f"{_INTERRUPTED}\n".encode())
        os._exit(128 + number)

    # A closed terminal or a stopped container, unlike Ctrl-C, is no decision against the job, so it stays.
    usual = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        with status:
            result = submit(
                submission,
                database=database,
                app=make_app(settings),
                bundle=load_bundle(settings.resolved_bundle()),
                on_progress=lambda images: status.update(f"recording images … {images:,}"),
                # Before the submission ends: when it is killed in between, the job can still be resumed.
                on_recorded=tell,
            )
    except SQLAlchemyError:
        click.echo(_INTERRUPTED, err=True)
        raise
    except KeyboardInterrupt:
        fate = f"Run `dermq status {job_ids[0]}` for the state of the job." if job_ids else "Nothing was submitted."
        click.echo(f"Interrupted. {fate}", err=True)
        raise
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
    for note in result.notes():
        # Without line breaks: notes contain commands to copy.
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    if resting and hours is not None:
        console.print(f"It rests now. It is scored from {hours.replace('-', ' to ')}.", highlight=False, markup=False)
    _warn_of_other_bundle(settings, console)
    unfinished = False
    if then_watch:
        (job,) = watch_jobs(database, [result.job_id])
        # To standard error: for scripts, standard output has the job number alone.
        print_summary(database, job, console)
        unfinished = job.status is not JobStatus.FINISHED
    # Images in unreadable folders and rows without a path are in no job, and a manifest without any file has the wrong
    # root: a script must not take that for success.
    nothing_found = 0 < result.images == result.not_found + result.outside_root
    left_out = result.scan.unreadable or (result.rows is not None and result.rows.not_submitted_by_kind())
    if unfinished or left_out or nothing_found:
        sys.exit(1)


def _dry_run(source: "OpenedSource", selection: "Selection", console: "Console") -> None:
    """Read a source to its end and tell what would be submitted. Exit status 1 where something would be missing."""
    from worker.intake.submission import nothing_found

    images = not_found = outside = 0
    for image in source.images:
        images += 1
        if image.failure is not None:
            click.echo(f"fails: {printable(image.path)}: {image.failure[1]}")
        elif image.path.startswith(("/", "../")):
            outside += 1
            click.echo(f"outside the folder: {printable(image.path)}")
        elif image.size_bytes is None:
            not_found += 1
            click.echo(f"not found: {printable(image.path)}")
    if source.rows is not None:
        for problem in source.rows.problems():
            click.echo(problem)
    if not images:
        raise click.ClickException(nothing_found(source))
    plural = "s" if images != 1 else ""
    console.print(f"{images:,} image{plural} would be submitted, {not_found:,} of them not found.", highlight=False)
    notes = [*source.scan.notes(), *(source.rows.notes() if source.rows is not None else []), *selection.notes()]
    for note in notes:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    if (
        not_found
        or outside
        or source.scan.unreadable
        or (source.rows is not None and source.rows.not_submitted_by_kind())
    ):
        sys.exit(1)


def _warn_of_other_bundle(settings: Settings, console: "Console") -> None:
    """Warn when a `dermq up` runs here with another bundle: its workers would never score the job."""
    from worker.inference.bundle_reference import configured_bundle, running_bundle

    here, running = configured_bundle(settings), running_bundle(settings)
    if here and running and here != running:
        console.print(
            f"WARNING: the job needs the bundle {here}, as DERMQ_BUNDLE says here, but `dermq up` runs with {running}. "
            "Restart `dermq up` with this DERMQ_BUNDLE. Or cancel the job, unset DERMQ_BUNDLE here and submit again.",
            highlight=False,
            markup=False,
        )
