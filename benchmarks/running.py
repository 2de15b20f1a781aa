"""A dermq of its own for a benchmark: a database, a broker and worker processes, without Flower."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, select

from db.models import Job
from db.progress import JobCounts, count_jobs
from db.schema import migrate
from db.session import open_database, read
from db.status import JobStatus
from worker.local.broker import new_local_broker
from worker.queue.app import make_app
from worker.settings import Settings

ROOT = Path(__file__).parents[1]
#: Seconds to wait for anything.
TIMEOUT = 1800.0


@dataclass(kw_only=True)
class Running:
    """What runs, and how to ask it."""

    settings: Settings
    database: Engine
    workers: "list[subprocess.Popen[bytes]]"

    def submit(self, manifest: Path, root: Path, *, force: bool = True) -> int:
        """Submit a manifest. Returns the job's id."""
        from worker.inference.bundle import load_bundle
        from worker.intake.submission import Submission, submit

        submission = Submission(
            source=manifest,
            root=root,
            policy="youden",
            urgent=False,
            chunk_size=self.settings.chunk_size,
            force=force,
        )
        app, bundle = make_app(self.settings), load_bundle(self.settings.resolved_bundle())
        return submit(submission, database=self.database, app=app, bundle=bundle).job_id

    def wait(self, job: int) -> tuple[float, JobCounts]:
        """Wait until a job is finished. Returns the seconds from first claim to last outcome, and its counts."""
        end = time.monotonic() + TIMEOUT
        while time.monotonic() < end:
            started = read(
                self.database, lambda c: c.execute(select(Job.status, Job.started_at).where(Job.id == job)).one()
            )
            if started.status is JobStatus.FINISHED and started.started_at is not None:
                counts = read(self.database, lambda c: count_jobs(c, [job]))[job]
                assert counts.last_completed_at is not None
                return (counts.last_completed_at - started.started_at).total_seconds(), counts
            if any(worker.poll() is not None for worker in self.workers):
                raise SystemExit("A worker ended. Its log is above.")
            time.sleep(0.2)
        raise SystemExit(f"Job {job} did not finish in {TIMEOUT:.0f} s.")

    def cpu_seconds(self) -> float:
        """Processor time of all worker processes so far."""
        return sum(_cpu_seconds(pid) for worker in self.workers for pid in with_children(worker.pid))


@contextlib.contextmanager
def postgres_url(wanted: bool) -> Iterator[str | None]:
    """Address of an empty database of a PostgreSQL server that is started for it. None if it is not wanted."""
    if not wanted:
        yield None
        return
    # The tests have the code that starts it.
    sys.path.insert(0, str(ROOT))
    from tests.integration.databases import PostgresServer, find_postgres_binaries

    binaries = find_postgres_binaries()
    if binaries is None:
        raise SystemExit("There is no PostgreSQL server on this machine. Install Debian's postgresql.")
    server = PostgresServer(binaries)
    try:
        yield server.new_database()
    finally:
        server.stop()


@contextlib.contextmanager
def running(
    home: Path,
    *,
    concurrency: int,
    workers: int = 1,
    bundle: Path | None = None,
    database_url: str | None = None,
    noop: bool = False,
    noop_seconds: float = 0.0,
    **settings: str,
) -> Iterator[Running]:
    """Start a broker and workers.

    Args:
        home: an empty folder.
        concurrency: processes of each worker.
        workers: their number.
        bundle: None is the shipped one.
        database_url: None is SQLite in the home.
        noop: workers that read no image and infer nothing: each image gets the same probability.
        noop_seconds: seconds that they sleep for each image.
        settings: further settings by name, such as ``batch_size``.
    """
    broker = new_local_broker()
    values = {
        "home": str(home),
        "broker_url": broker.url,
        "concurrency": str(concurrency),
        **({"database_url": database_url} if database_url else {}),
        **({"bundle": str(bundle)} if bundle else {}),
        **settings,
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DERMQ_")}
    environment |= {f"DERMQ_{name.upper()}": value for name, value in values.items()}
    environment["NOOP_SECONDS"] = str(noop_seconds)
    with contextlib.ExitStack() as stack:
        log = stack.enter_context((home / "log").open("wb"))
        server = subprocess.Popen([broker.binary, "-"], stdin=subprocess.PIPE, stdout=log, stderr=log)
        stack.callback(_end, server)
        assert server.stdin is not None
        server.stdin.write(broker.configuration(home).encode())
        server.stdin.close()
        loaded = Settings(**values)  # type: ignore[arg-type] # texts, as from the environment
        database = open_database(loaded.resolved_database_url())
        stack.callback(database.dispose)
        migrate(database)
        module = [str(ROOT / "benchmarks" / "noop_worker.py")] if noop else ["-m", "worker.cli"]
        started = []
        for number in range(workers):
            command = [sys.executable, *module, "worker", "--name", f"bench{number}"]
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
            stack.callback(_end, process)
            started.append(process)
        yield Running(settings=loaded, database=database, workers=started)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def with_children(pid: int) -> list[int]:
    """A process and its children."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(child) for child in task.read_text().split()]
    return found


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
