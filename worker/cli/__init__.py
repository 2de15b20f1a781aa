"""``dermq``: the operator's command."""

import contextlib
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from sqlalchemy.exc import SQLAlchemyError

from db.session import DatabaseUrlError, UnknownSchemaError
from worker import __version__
from worker.cli.export import export
from worker.cli.job_control import COMMANDS, JOB_NUMBER, current_actor, open_checked_database
from worker.errors import DermqError, SubmissionInterruptedError
from worker.logging import configure_logging
from worker.settings import Settings, load_settings, shipped_bundle
from worker.terminal import make_console, printable
from worker.url_redaction import without_password

if TYPE_CHECKING:
    from rich.console import Console
    from sqlalchemy import Engine

    from db.jobs import JobView

_BROKEN_OFF = "Broken off: what was taken in stays, and the same `dermq submit` again goes on with it."

# Each command imports what it needs itself: `dermq --help` must not wait for OpenVINO and Celery.


class _Group(click.Group):
    """Turns our errors into one line and an exit status: 2 for what the operator can mend, 3 for the database."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except (DermqError, DatabaseUrlError, UnknownSchemaError) as error:
            click.echo(f"dermq: {printable(str(error), lines=True)}", err=True)
            raise SystemExit(130 if isinstance(error, SubmissionInterruptedError) else 2) from None
        except SQLAlchemyError as error:
            said = without_password(str(error).splitlines()[0], load_settings().resolved_database_url())
            click.echo(f"dermq: the database failed: {said}. `dermq check` says what is wrong.", err=True)
            raise SystemExit(3) from None
        except KeyboardInterrupt:
            raise SystemExit(130) from None


class _Source(click.Path):
    """A path, but for the empty one of a variable that is not set: that would be the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not os.fspath(value):
            self.fail("Received: ''. Expected: a folder or a CSV manifest; a dot is the current folder.", param, ctx)
        return super().convert(value, param, ctx)


@click.group(cls=_Group)
@click.version_option(__version__, prog_name="dermq")
def main() -> None:
    """Score archives of dermoscopic images for melanoma risk.

    \b
    One machine:   dermq up            in one terminal, then in another
                   dermq submit FOLDER
                   dermq watch
                   dermq export 1 > outcomes.csv

    Settings are environment variables DERMQ_…, listed in docs/settings.md. Not a medical device: for research.
    """


for command in (export, *COMMANDS):
    main.add_command(command)


@main.command()
def up() -> None:
    """Run the whole system on this machine until Ctrl-C.

    Starts a broker (unless DERMQ_BROKER_URL names one), a worker, the sweeper and Flower as child processes, starts
    again what dies, and writes their logs into one folder.
    """
    from worker.inference.bundle import load_bundle
    from worker.local.system import LocalSystem, StoppedError

    settings = load_settings()
    configure_logging(settings)
    # Here and now: a worker that has no bundle would only say so in its log.
    load_bundle(settings.bundle or shipped_bundle())
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    click.echo("dermq is starting …")
    try:
        with LocalSystem(settings=settings, asked_to_stop=stop) as system:
            _print_running(system.settings, system.flower_url, system.logs)
            system.supervise(stop)
            click.echo("dermq is stopping: work in hand is handed back …")
    except StoppedError as stopped:
        click.echo(str(stopped))
        return
    click.echo("dermq has stopped. Nothing is lost; `dermq up` goes on where it was.")


def _print_running(settings: Settings, flower_url: str, logs: Path) -> None:
    from worker.url_redaction import shown_database

    database = shown_database(settings.resolved_database_url())
    password = settings.flower_password.get_secret_value() if settings.flower_password else ""
    click.echo(
        f"dermq is up. Stop it with Ctrl-C.\n"
        f"  database  {database}\n"
        f"  worker    {settings.concurrency} processes, engine {settings.engine}\n"
        f"  Flower    {flower_url}  user dermq  password {password}\n"
        f"  logs      {logs}\n"
        f"  next      dermq submit FOLDER   in another terminal"
    )


@main.command()
@click.argument("source", type=_Source(path_type=Path))
@click.option("--root", type=click.Path(path_type=Path), help="Folder that a manifest's paths are relative to.")
@click.option("--policy", default="youden", show_default=True, help="Triage policy, one of the bundle's.")
@click.option("--urgent", is_flag=True, help="Go before bulk work.")
@click.option("--force", is_flag=True, help="Score anew what was scored before under this bundle.")
@click.option("--watch", "then_watch", is_flag=True, help="Show progress until the job is finished.")
def submit(source: Path, root: Path | None, policy: str, urgent: bool, force: bool, then_watch: bool) -> None:
    """Submit SOURCE, a folder of images or a CSV manifest, as a job.

    \b
    A manifest has the column path and optionally lesion_id, patient_ref, age, sex, site, between commas,
    semicolons or tabs:
      dermq submit /archive/2019
      dermq submit cases.csv --root /archive --urgent --watch

    The job's number goes to standard output, everything else to standard error. The exit status is 1 when a folder
    could not be read or no path of a manifest leads to a file inside its root, and with --watch for a job that rests
    unfinished.
    """
    from db.status import JobStatus
    from worker.inference.bundle import load_bundle
    from worker.intake.submission import Submission, submit
    from worker.monitor.summary import print_summary
    from worker.queue.app import make_app

    settings = load_settings()
    database = open_checked_database()
    console = make_console(stderr=True)
    submission = Submission(
        source=source,
        root=root,
        policy=policy,
        urgent=urgent,
        chunk_size=settings.chunk_size,
        lease_seconds=settings.lease_seconds,
        force=force,
        actor=current_actor(),
    )
    configure_logging(settings)

    told: list[int] = []
    status = console.status("taking in …")

    def tell(job: int) -> None:
        told.append(job)
        # Or the number would stand behind the spinner.
        status.stop()
        # Closed or full: the notes on standard error name the job too.
        with contextlib.suppress(OSError):
            click.echo(job)

    def leave(number: int, _frame: object) -> None:
        # At once, as a kill would. An exception that is raised here is lost when it interrupts a finaliser.
        with contextlib.suppress(OSError):
            os.write(2, f"{_BROKEN_OFF}\n".encode())
        os._exit(128 + number)

    # A closed terminal or a stopped container: nobody is there who has changed their mind, so the job stays.
    usual = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        with status:
            intake = submit(
                submission,
                database=database,
                app=make_app(settings),
                bundle=load_bundle(settings.resolved_bundle()),
                on_progress=lambda images: status.update(f"taking in … {images:,} images"),
                # Before the job is ended: killed in between, it is told and still there to be gone on with.
                on_recorded=tell,
            )
    except SQLAlchemyError:
        click.echo(_BROKEN_OFF, err=True)
        raise
    except KeyboardInterrupt:
        became = f"`dermq status` says what became of job {told[0]}." if told else "Nothing was submitted."
        click.echo(f"Interrupted. {became}", err=True)
        raise
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
    for note in intake.notes():
        # Not cut into lines: commands stand in them that are copied.
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    _warn_of_other_bundle(settings, console)
    unfinished = False
    if then_watch:
        rested = _watch_or_leave(database, intake.job_id)
        # Standard output has the job's number alone, for scripts.
        print_summary(database, rested, console)
        unfinished = rested.status is not JobStatus.FINISHED
    # What lies in folders that nobody could read is in no job, and where no file is found it is the wrong folder: a
    # script must not take that for success.
    nothing_found = 0 < intake.images == intake.not_found + intake.outside_root
    if unfinished or intake.folder.unreadable or nothing_found:
        sys.exit(1)


def _warn_of_other_bundle(settings: Settings, console: "Console") -> None:
    """A `dermq up` that runs here scores under its own bundle alone: a job under another one would wait for ever."""
    from worker.inference.bundle_reference import bundle_here, bundle_running

    here, running = bundle_here(settings), bundle_running(settings)
    if here and running and here != running:
        console.print(
            f"WARNING: this was submitted under {here}, as DERMQ_BUNDLE says here, and `dermq up` runs with {running}. "
            "It waits until that is started anew with this DERMQ_BUNDLE. Or cancel it, unset DERMQ_BUNDLE here, and "
            "submit again.",
            highlight=False,
            markup=False,
        )


def _watch_or_leave(database: "Engine", job: int) -> "JobView":
    """Watch a job; Ctrl-C ends the watching, not the job."""
    from worker.monitor.terminal_progress import watch

    try:
        return watch(database, job, make_console(stderr=True))
    except KeyboardInterrupt:
        click.echo(f"Job {job} goes on. Look again with: dermq watch {job}", err=True)
        raise


@main.command()
@click.argument("job", type=JOB_NUMBER, required=False)
def status(job: int | None) -> None:
    """Say how JOB stands, or list the newest jobs."""
    from db.jobs import view_jobs
    from db.progress import count_statuses
    from db.session import read
    from worker.monitor.job_status import find_job, job_rate, outcome_counts
    from worker.monitor.summary import print_summary

    database = open_checked_database()
    if job is not None:
        print_summary(database, find_job(database, job), make_console())
        return
    jobs = read(database, view_jobs)
    if not jobs:
        click.echo("There are no jobs yet. Submit one: dermq submit FOLDER")
    for view in jobs:
        counts = read(database, lambda connection, number=view.id: count_statuses(connection, number))  # type: ignore[misc]
        standing = "broken off" if view.abandoned else view.status
        click.echo(
            f"{view.id:>5}  {standing:<10}  {counts.ended:,} of {counts.submitted:,}  {outcome_counts(counts)}  "
            f"{job_rate(view, counts)}  {view.policy} of {view.bundle_name} {view.bundle_version}  "
            f"{printable(view.manifest or view.root)}"
        )


@main.command()
@click.argument("job", type=JOB_NUMBER, required=False)
def watch(job: int | None) -> None:
    """Show the progress of JOB, or of the newest, until it is finished, paused or cancelled.

    The exit status is 0 for a finished job and 1 for one that rests unfinished.
    """
    from db.status import JobStatus
    from worker.monitor.job_status import find_job
    from worker.monitor.summary import print_summary

    database = open_checked_database()
    rested = _watch_or_leave(database, find_job(database, job).id)
    print_summary(database, rested, make_console())
    sys.exit(0 if rested.status is JobStatus.FINISHED else 1)


@main.command()
def check() -> None:
    """Check bundle, database, broker, workers and sweeper: a line each, exit status 1 when one is not well."""
    from worker.monitor.health import check_all

    well = True
    for finding in check_all(load_settings()):
        click.echo(f"{'ok  ' if finding.well else 'FAIL'}  {finding.part:<9} {finding.text}")
        well = well and finding.well
    sys.exit(0 if well else 1)


@main.command()
@click.argument("images", type=click.Path(path_type=Path, exists=True), required=False)
@click.option("--count", default=200, show_default=True, help="Made-up pictures to draw when no IMAGES are given.")
def demo(images: Path | None, count: int) -> None:
    """Score IMAGES, or an archive of made-up pictures, with the whole system, and show what came out.

    The exit status is 1 when a folder could not be read, or when the job rests unfinished.
    """
    from worker.cli.demo import run_demo

    if not run_demo(images, count, load_settings()):
        sys.exit(1)


@main.command()
def migrate() -> None:
    """Bring the database to the schema of this version; safe to run at any time, by several at once.

    And SQLite's write-ahead log into the database, so that nothing that was deleted stands in it.
    """
    from db.schema import migrate, newest_revision
    from db.session import empty_write_ahead_log, open_database

    database = open_database(load_settings().resolved_database_url())
    try:
        migrate(database)
        emptied = empty_write_ahead_log(database)
    finally:
        database.dispose()
    click.echo(f"The database has schema {newest_revision()}.")
    if not emptied:
        click.echo(
            "Its write-ahead log is not emptied: somebody reads, or a stopped process holds it. Ask again then.",
            err=True,
        )


@main.command()
@click.option("--name", default="dermq", show_default=True, help="Name of this worker, before its host's.")
def worker(name: str) -> None:
    """Run a worker until SIGTERM, which makes it hand back the work in hand and leave.

    It waits for a database or a broker that is away, at its start and afterwards, and says so once a minute.
    """
    from worker.monitor.health import wait_for_database
    from worker.queue.app import BULK, URGENT, make_app

    settings = load_settings()
    configure_logging(settings)
    # Not in a child, at the first hint: nobody would see what is missing.
    wait_for_database(settings)
    arguments = ["worker", "--pool=prefork", f"--concurrency={settings.concurrency}", f"--queues={URGENT},{BULK}"]
    make_app(settings).worker_main(
        [*arguments, f"--hostname={name}@%h", "--loglevel=INFO", "--without-gossip", "--without-mingle"]
    )


@main.command()
def sweep() -> None:
    """Run the sweeper until SIGTERM: it sends hints for chunks that nobody works on."""
    from db.session import open_database
    from worker.queue.app import make_app
    from worker.queue.sweeper import run_sweeper

    settings = load_settings()
    configure_logging(settings)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    run_sweeper(open_database(settings.resolved_database_url()), make_app(settings), settings, stop)


@main.command()
def flower() -> None:
    """Serve Flower, the view of workers and tasks, behind DERMQ_FLOWER_PASSWORD until SIGTERM."""
    from worker.monitor.flower import run_flower
    from worker.queue.app import make_app

    settings = load_settings()
    configure_logging(settings)
    run_flower(make_app(settings), settings, settings.flower_port or 5555)
