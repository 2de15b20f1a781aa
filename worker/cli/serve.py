"""Commands that run a service: `up` for the whole system, and its processes one by one; and `migrate`."""

import signal
import threading
from pathlib import Path

import click

from worker.limits import check_memory
from worker.logging import configure_logging
from worker.settings import Settings, load_settings, shipped_bundle
from worker.terminal import printable


def _event_set_by_signals() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop


@click.command(short_help="Run the whole system on this machine.")
def up() -> None:
    """Run the whole system on this machine until Ctrl-C.

    Starts a broker (unless DERMQ_BROKER_URL is set), a worker, the sweeper and Flower as child processes. It restarts
    a process that dies, and writes their logs into one folder.
    """
    from worker.inference.bundle import load_bundle
    from worker.local.system import LocalSystem, StoppedError

    settings = load_settings()
    configure_logging(settings)
    _check_memory(settings)
    # Here: a worker without a bundle would only report it in its log.
    load_bundle(settings.bundle or shipped_bundle())
    stop = _event_set_by_signals()
    click.echo("dermq is starting …")
    try:
        with LocalSystem(settings=settings, stop_requested=stop, say_waiting=_say_waiting) as system:
            _print_running(system.settings, system.flower_url, system.logs)
            system.supervise(stop)
            click.echo("dermq is stopping. The worker releases its chunks …")
    except StoppedError as stopped:
        click.echo(str(stopped))
        return
    click.echo("dermq has stopped. Nothing is lost: `dermq up` continues the open jobs.")


def _say_waiting(process: str, at_most: float) -> None:
    click.echo(f"Waiting for the {process}, at most {at_most:.0f} s …")


def _check_memory(settings: Settings) -> None:
    if warning := check_memory(settings.concurrency):
        click.echo(f"WARNING: {warning}", err=True)


def _print_running(settings: Settings, flower_url: str, logs: Path) -> None:
    from worker.url_redaction import shown_database

    database = shown_database(settings.resolved_database_url())
    password = settings.flower_password.get_secret_value() if settings.flower_password else ""
    click.echo(
        f"dermq is running. Stop it with Ctrl-C.\n"
        f"  database  {printable(database)}\n"
        f"  worker    {settings.concurrency} processes, engine {settings.engine}\n"
        f"  Flower    {flower_url}  user dermq  password {password}\n"
        f"  logs      {printable(str(logs))}\n"
        f"  next      dermq submit FOLDER   in another terminal"
    )


@click.command(short_help="Run a worker until SIGTERM.")
@click.option("--name", default="dermq", show_default=True, help="Name of this worker, before the host name.")
def worker(name: str) -> None:
    """Run a worker until SIGTERM. It then releases its chunks and stops.

    The worker waits for a database or broker that is unavailable, and logs that once a minute.
    """
    from worker.database_check import wait_for_database
    from worker.queue.app import BULK, URGENT
    from worker.scoring.tasks import make_worker_app

    settings = load_settings()
    configure_logging(settings)
    _check_memory(settings)
    # Here, not in a child at the first hint, where nobody would see what is missing.
    wait_for_database(settings)
    arguments = ["worker", "--pool=prefork", f"--concurrency={settings.concurrency}", f"--queues={URGENT},{BULK}"]
    make_worker_app(settings).worker_main(
        [*arguments, f"--hostname={name}@%h", "--loglevel=INFO", "--without-gossip", "--without-mingle"]
    )


@click.command(short_help="Run the sweeper until SIGTERM.")
def sweep() -> None:
    """Run the sweeper until SIGTERM.

    It sends hints for chunks that no worker has, and news of jobs to DERMQ_NOTIFY_URL and DERMQ_NOTIFY_COMMAND.
    """
    from db.session import open_database
    from worker.monitor.notify import Notifier
    from worker.queue.app import make_app
    from worker.queue.sweeper import run_sweeper

    settings = load_settings()
    configure_logging(settings)
    stop = _event_set_by_signals()
    database = open_database(settings.resolved_database_url())
    Notifier(settings, database).start()
    run_sweeper(database, make_app(settings), settings, stop)


@click.command(short_help="Run Flower, the view of jobs and workers.")
def flower() -> None:
    """Run Flower, the view of jobs, workers and tasks, until SIGTERM.

    It needs an account: DERMQ_FLOWER_PASSWORD, `dermq users add NAME`, or OAuth.
    """
    from worker.monitor.web.server import run_flower
    from worker.queue.app import make_app

    settings = load_settings()
    configure_logging(settings)
    run_flower(make_app(settings), settings, settings.flower_port or 5555)


@click.command(short_help="Bring the database to this version's schema.")
def migrate() -> None:
    """Bring the database to this version's schema. Safe to run at any time, also several times at once.

    On SQLite it also empties the write-ahead log, so that no deleted row stays readable in it.
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
            "The write-ahead log is not empty, because another process reads the database or is stopped. Run "
            "`dermq migrate` again later.",
            err=True,
        )
