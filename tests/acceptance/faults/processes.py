"""The parts of a system as processes that a fault test starts, hurts and ends one by one."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import redis
from sqlalchemy import Engine

from db.schema import migrate
from db.session import open_database
from tests.acceptance.conftest import environment_for, run_dermq, until
from worker.local.broker import new_local_broker

#: What `injected/sitecustomize.py` acts in: the processes with this folder on their PYTHONPATH.
FAULTS = Path(__file__).parent / "injected"
#: Seconds that decoding an image takes longer than it does: a job that is over in a moment has no middle to hurt.
PACE = 0.04


@dataclass(kw_only=True)
class Part:
    """A process of dermq and its log."""

    name: str
    process: subprocess.Popen[bytes]
    log_file: Path

    def log(self) -> str:
        """What it and its children have said so far."""
        return self.log_file.read_text(errors="replace")

    def children(self) -> list[int]:
        """Processes that it has forked: of a worker, its pool."""
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def ask_to_stop(self) -> None:
        """SIGTERM."""
        self.process.terminate()

    def kill(self) -> None:
        """SIGKILL to the whole of it, children included, whether it runs, is frozen, or has left children behind."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Broker:
    """A broker that loses everything when it dies, and comes back on the same port."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._local = new_local_broker()
        self._process: subprocess.Popen[bytes] | None = None
        self.client = redis.Redis.from_url(self._local.url, socket_timeout=30)

    @property
    def url(self) -> str:
        """For DERMQ_BROKER_URL."""
        return self._local.url

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self._folder / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._local.binary, "-"], stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
            )
        assert self._process.stdin is not None
        self._process.stdin.write(self._local.configuration(self._folder).encode())
        self._process.stdin.close()
        until(self._answers, "the broker answers")

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.ConnectionError:
            return False

    def waiting(self) -> int:
        """Messages that no worker has taken yet."""
        return sum(int(self.client.llen(f"dermq:{queue}")) for queue in ("urgent", "bulk"))

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL."""
        self._signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()
        self._process = None

    def close(self) -> None:
        """End it, if it runs."""
        if self._process is not None:
            self.kill()
        self.client.close()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


@dataclass(kw_only=True)
class FaultSystem:
    """Broker and database of one fault test, and whatever parts it starts on them."""

    home: Path
    environment: dict[str, str]
    broker: Broker
    database: Engine
    parts: list[Part] = field(default_factory=list)

    def worker(self, name: str = "worker", *, wrapped_in: tuple[str, ...] = (), **environment: str) -> Part:
        """Start a worker that scores at `PACE`, unless its environment says otherwise."""
        return self._start(name, [*wrapped_in, *_DERMQ, "worker", "--name", name], environment)

    def sweeper(self, **environment: str) -> Part:
        """Start the sweeper."""
        return self._start("sweeper", [*_DERMQ, "sweep"], environment)

    def submitter(self, source: Path, *options: str, **environment: str) -> Part:
        """Start a `dermq submit` that the fault test may kill; the job's number goes into its log, with everything
        else.
        """
        return self._start("submitter", [*_DERMQ, "submit", str(source), *options], environment)

    def migration(self, **environment: str) -> Part:
        """Start a `dermq migrate`."""
        return self._start(f"migration-{len(self.parts)}", [*_DERMQ, "migrate"], environment)

    def submit(self, source: Path, *options: str | Path) -> int:
        """Submit a source and wait until the submission has ended."""
        return int(self.dermq("submit", source, *options).stdout)

    def dermq(self, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of the operator to its end."""
        return run_dermq(self.environment, *arguments, check=check)

    def end(self) -> None:
        """Kill every part, and print what each said last, which pytest shows when the fault test has failed."""
        for part in self.parts:
            part.kill()
            print(f"--- {part.name}\n{part.log()[-6_000:]}")
        self.broker.close()
        self.database.dispose()

    def _start(self, name: str, command: list[str], environment: dict[str, str]) -> Part:
        log_file = self.home / f"{name}.log"
        with log_file.open("ab") as log:
            process = subprocess.Popen(
                command,
                env={**self.environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        part = Part(name=name, process=process, log_file=log_file)
        self.parts.append(part)
        return part


_DERMQ = [sys.executable, "-P", "-m", "worker.cli"]


def with_faults(**faults: str) -> dict[str, str]:
    """The environment in which `injected/sitecustomize.py` acts."""
    path = os.pathsep.join(filter(None, (str(FAULTS), os.environ.get("PYTHONPATH"))))
    return {"PYTHONPATH": path, "FAULT_SECONDS_PER_IMAGE": str(PACE), **faults}


@contextmanager
def running_system(
    home: Path, database_url: str | None = None, *, with_schema: bool = True, **settings: str
) -> Iterator[FaultSystem]:
    """A database with its schema, a broker, and nothing else yet.

    Args:
        home: of the system.
        database_url: default: SQLite in the home.
        with_schema: whether the database has its schema at the start.
        settings: of every part.
    """
    home.mkdir(exist_ok=True)
    broker = Broker(home)
    url = database_url or f"sqlite:///{home / 'dermq.db'}"
    environment = environment_for(home, DERMQ_DATABASE_URL=url, DERMQ_BROKER_URL=broker.url, **with_faults(**settings))
    system = FaultSystem(home=home, environment=environment, broker=broker, database=open_database(url))
    try:
        broker.start()
        if with_schema:
            migrate(system.database)
        yield system
    finally:
        system.end()
