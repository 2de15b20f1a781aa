"""``dermq demo``: the whole system on a made-up archive, or on yours."""

import os
import sys
import threading
from pathlib import Path

from rich.console import Console

from db.session import open_database
from db.status import JobStatus
from worker.inference.bundle import load_bundle
from worker.intake.submission import Submission, submit
from worker.local.system import LocalSystem
from worker.monitor.summary import print_summary
from worker.monitor.terminal_progress import watch
from worker.queue.app import make_app
from worker.settings import Settings
from worker.synthetic.archive import make_archive
from worker.terminal import make_console


def run_demo(images: Path | None, count: int, settings: Settings) -> bool:
    """Start everything, score, print what came out, stop.

    Args:
        images: a folder or manifest of your own, or None for made-up pictures.
        count: of made-up pictures.
        settings: the home folder in them keeps archive, database and logs.

    Returns:
        Whether every image is in the job and the job finished.
    """
    console = make_console()
    made_up = images is None
    source = images or settings.home / f"made-up-archive-{count}"
    if made_up:
        with console.status("drawing made-up pictures …"):
            make_archive(source, count)
        console.print(f"Archive: {count} made-up pictures and some broken files in {_short(source)}")
    console.print("Starting broker, worker, sweeper and Flower …")

    def say_waiting(part: str, at_most: float) -> None:
        console.print(f"Waiting for the {part}, at most {at_most:.0f} s …")

    with LocalSystem(settings=settings, say_waiting=say_waiting) as system:
        stop = threading.Event()
        supervisor = threading.Thread(target=system.supervise, args=(stop,), daemon=True)
        supervisor.start()
        try:
            complete = _score(source, system, console)
        finally:
            stop.set()
            supervisor.join()
    if made_up:
        console.print("[bold]These pictures are made up: their probabilities mean nothing clinically.[/bold]")
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            console.print("You are root, whom no file permission stops: the unreadable picture was read and scored.")
    console.print("Score your own:  make demo IMAGES=folder")
    return complete


def _short(path: Path) -> Path:
    """A path as one would type it here."""
    absolute = path.absolute()
    return absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute


def _score(source: Path, system: LocalSystem, console: Console) -> bool:
    settings = system.settings
    password = settings.flower_password.get_secret_value() if settings.flower_password else ""
    console.print(f"Flower:  {system.flower_url}  user dermq  password {password}  (while this runs)", soft_wrap=True)
    database = open_database(settings.resolved_database_url())
    intake = submit(
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
    for note in intake.notes():
        console.print(note, markup=False)
    job = watch(database, intake.job_id, console)
    console.print()
    command = f"DERMQ_HOME={_short(settings.home)} {_short(Path(sys.argv[0]))}"
    print_summary(database, job, console, command=command)
    console.print(f"\nEverything as CSV:  {command} export {job.id}", soft_wrap=True)
    console.print(f"Logs:  {_short(system.logs)}", soft_wrap=True)
    return job.status is JobStatus.FINISHED and not intake.folder.unreadable
