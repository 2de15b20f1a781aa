"""``dermq demo``: the whole system on a synthetic archive, or on your own."""

import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from worker.settings import Settings, load_settings

if TYPE_CHECKING:
    from rich.console import Console

    from worker.local.system import LocalSystem


@click.command(short_help="Score a synthetic archive with the whole system.")
@click.argument("images", type=click.Path(path_type=Path, exists=True), required=False)
@click.option("--count", default=200, show_default=True, help="Number of synthetic images when no IMAGES are given.")
def demo(images: Path | None, count: int) -> None:
    """Score IMAGES, or a synthetic archive, with the whole system, and show the result.

    Exit status 1: a folder could not be read, or the job stopped before it was finished.
    """
    if not run_demo(images, count, load_settings()):
        sys.exit(1)


def run_demo(images: Path | None, count: int, settings: Settings) -> bool:
    """Start everything, score, print the result, stop.

    Args:
        images: a folder or manifest of your own. None for synthetic images.
        count: number of synthetic images.
        settings: their home folder holds archive, database and logs.

    Returns:
        Whether every image is in the job and the job finished.
    """
    from worker.local.system import LocalSystem
    from worker.synthetic.archive import make_archive
    from worker.terminal import make_console

    console = make_console()
    source = images or settings.home / f"synthetic-archive-{count}"
    if images is None:
        with console.status("drawing synthetic images …"):
            make_archive(source, count)
        console.print(f"Archive: {count} synthetic images and some broken files in {_short(source)}")
    console.print("Starting broker, worker, sweeper and Flower …")

    def say_waiting(process: str, at_most: float) -> None:
        console.print(f"Waiting for the {process}, at most {at_most:.0f} s …")

    with LocalSystem(settings=settings, say_waiting=say_waiting) as system:
        stop = threading.Event()
        supervisor = threading.Thread(target=system.supervise, args=(stop,), daemon=True)
        supervisor.start()
        try:
            complete = _score(source, system, console)
        finally:
            stop.set()
            supervisor.join()
    if images is None:
        console.print("[bold]The images are synthetic: their probabilities have no clinical meaning.[/bold]")
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            console.print("One file is unreadable on purpose. You are root, so it was read and scored all the same.")
    console.print("Score your own:  make demo IMAGES=folder")
    return complete


def _short(path: Path) -> Path:
    """A path as one would type it in the current folder."""
    absolute = path.absolute()
    return absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute


def _score(source: Path, system: "LocalSystem", console: "Console") -> bool:
    from db.session import open_database
    from db.status import JobStatus
    from worker.inference.bundle import load_bundle
    from worker.intake.submission import Submission, submit
    from worker.monitor.summary import print_summary
    from worker.monitor.terminal_progress import watch
    from worker.queue.app import make_app

    settings = system.settings
    password = settings.flower_password.get_secret_value() if settings.flower_password else ""
    console.print(f"Flower:  {system.flower_url}  user dermq  password {password}  (while this runs)", soft_wrap=True)
    database = open_database(settings.resolved_database_url())
    result = submit(
        Submission(
            source=source,
            root=None,
            policy="youden",
            urgent=False,
            chunk_size=settings.chunk_size,
            actor="dermq demo",
            force=True,
        ),
        database=database,
        app=make_app(settings),
        bundle=load_bundle(settings.resolved_bundle()),
    )
    for note in result.notes():
        console.print(note, markup=False)
    (job,) = watch(database, [result.job_id], console)
    console.print()
    command = f"DERMQ_HOME={_short(settings.home)} {_short(Path(sys.argv[0]))}"
    print_summary(database, job, console, command=command)
    console.print(f"\nAll outcomes as CSV:  {command} export {job.id}", soft_wrap=True)
    console.print(f"Logs:  {_short(system.logs)}", soft_wrap=True)
    return job.status is JobStatus.FINISHED and not result.scan.unreadable
