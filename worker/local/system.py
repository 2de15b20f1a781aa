"""The whole system on one machine: broker, worker, sweeper and Flower as child processes, restarted when they die."""

import base64
import ctypes
import fcntl
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from urllib.error import URLError
from urllib.request import Request, urlopen

from celery import Celery
from pydantic import SecretStr

from db.schema import migrate
from db.session import open_database
from worker.errors import BrokerError, DermqError, SettingsError
from worker.local.broker import LocalBroker, free_port, is_taken, new_local_broker
from worker.local.password import kept_password
from worker.local.stuck import stuck_processes
from worker.logging import get_logger
from worker.monitor.web.accounts import BUILT_IN
from worker.queue.app import make_app
from worker.queue.hints import queue_length
from worker.queue.inspect import workers_answering
from worker.settings import RUN_FILE, Settings, shipped_bundle

log = get_logger(__name__)

#: Seconds that each process has to start.
_START_TIMEOUT = 60.0
#: Seconds of waiting for a process before that is reported.
_REPORT_AFTER = 5.0
#: Seconds that the worker has to release its chunks and stop, and that the other processes have to stop.
_WORKER_GRACE = 40.0
_GRACE = 10.0
#: Seconds before a dead process is restarted, doubled at each further death, and their limit.
_RESTART_DELAY, _MAX_RESTART_DELAY = 1.0, 30.0
#: A process that ran for this many seconds counts as healthy, and its next death as the first.
_HEALTHY_AFTER = 60.0
#: Seconds between two looks for a stuck worker, and how many others are started beside it.
_LOOK_FOR_STUCK, _EXTRA_WORKERS = 5.0, 2
_FLOWER_PORT = 5555
_FLOWER_ATTEMPTS = 3
#: The broker last: the worker returns its messages to it.
_STOP_ORDER = ("flower", "sweeper", "worker", "broker")
#: With -P, so that a ``worker/`` or ``click.py`` in the current folder is never imported instead of the installed one.
_DERMQ = (sys.executable, "-P", "-m", "worker.cli")


@dataclass(kw_only=True)
class _ManagedProcess:
    """A child process and how to restart it."""

    name: str
    command: list[str]
    environment: dict[str, str]
    log_file: Path
    stdin: str | None = None
    grace: float = _GRACE
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    deaths: int = 0
    restart_at: float | None = None

    def start(self) -> None:
        with self.log_file.open("ab") as output:
            self.process = subprocess.Popen(  # noqa: S603 - our own commands
                self.command,
                env=self.environment,
                stdin=subprocess.PIPE if self.stdin is not None else subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C reaches `dermq up` alone, which stops the processes in order.
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        if self.stdin is not None:
            _feed(self.process.stdin, self.stdin)
        self.started = time.monotonic()
        self.restart_at = None

    def stop(self) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(self.grace)
        except subprocess.TimeoutExpired:
            log.warning("process did not stop in time, killed", process=self.name)
            _kill_session(self.process)
            self.process.wait()


class StoppedError(Exception):
    """The system was stopped while it started. The text says what it waited for."""


def _log_waiting(process: str, at_most: float) -> None:
    log.info("waiting for a process", process=process, at_most_seconds=at_most)


@dataclass(kw_only=True)
class LocalSystem:
    """Starts the system on entry and stops it on exit.

    Args:
        settings: when they name a broker, it is used; otherwise a broker is started.
        stop_requested: ends the waiting for a process that does not start.
        say_waiting: called once for a slow process, with its name and the seconds that it has.

    Raises:
        StoppedError: a stop was requested before everything had started.
        SettingsError: another `dermq up` runs in the same home folder.
        BrokerError: no broker can be started or reached.
    """

    settings: Settings
    stop_requested: threading.Event = field(default_factory=threading.Event)
    say_waiting: Callable[[str, float], None] = _log_waiting
    processes: list[_ManagedProcess] = field(default_factory=list)
    _app: Celery = field(init=False)
    _lock: IO[str] | None = None
    _recorded: bool = False

    @property
    def logs(self) -> Path:
        """Folder of the log files, one per process."""
        return self.settings.home / "logs"

    @property
    def flower_url(self) -> str:
        """URL of Flower."""
        scheme = "http" if self.settings.flower_certificate is None else "https"
        prefix = self.settings.flower_url_prefix.strip("/")
        return f"{scheme}://{self.settings.flower_address}:{self.settings.flower_port}" + (
            f"/{prefix}" if prefix else ""
        )

    def __enter__(self) -> "LocalSystem":
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self) -> None:
        home = self.settings.home.absolute()
        try:
            # The database inside holds patient references: no other account may read it.
            home.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.logs.mkdir(exist_ok=True, mode=0o700)
            self._take_lock(home)
        except OSError as error:
            raise SettingsError(
                f"The folder {self.settings.home} (DERMQ_HOME) cannot be used: {error.strerror}. Set DERMQ_HOME to a "
                "folder that this account may write to, or to a new one."
            ) from None
        self._refuse_taken_port()
        broker = None if self.settings.broker_url is not None else new_local_broker()
        self.settings = self._completed(broker)
        environment = _environment(self.settings)
        if broker is not None:
            (home / "broker").mkdir(exist_ok=True)
            self._add("broker", [str(broker.binary), "-"], {}, stdin=broker.configuration(home / "broker"))
        # Once: each application keeps connections and signal handlers.
        self._app = make_app(self.settings)
        self._wait_for("broker", self._broker_answers)
        migrate(open_database(self.settings.resolved_database_url()))
        self._record_run(home)
        self._add("worker", [*_DERMQ, "worker"], environment, grace=_WORKER_GRACE)
        self._add("sweeper", [*_DERMQ, "sweep"], environment)
        self._wait_for("worker", lambda: bool(workers_answering(self._app, 1.0)))
        # After the worker, or Flower's log begins with warnings that no worker answers.
        self._start_flower([*_DERMQ, "flower"])

    def _start_flower(self, command: list[str]) -> None:
        """Start Flower on the configured port, or on a free one, which another program may take in between."""
        any_port = self.settings.flower_port == 0
        for attempt in range(1, _FLOWER_ATTEMPTS + 1):
            if any_port:
                port = free_port(_FLOWER_PORT if attempt == 1 else 0)
                self.settings = self.settings.model_copy(update={"flower_port": port})
            self._add("flower", command, _environment(self.settings))
            try:
                self._wait_for("flower", self._flower_answers)
            except DermqError:
                if not any_port or attempt == _FLOWER_ATTEMPTS:
                    raise
                self.processes.pop().stop()
            else:
                return

    def _refuse_taken_port(self) -> None:
        """Before anything starts, refuse a configured port for Flower that another program uses."""
        address, port = self.settings.flower_address, self.settings.flower_port
        if port and is_taken(address, port):
            raise SettingsError(
                f"Another program uses port {port} (DERMQ_FLOWER_PORT) on {address}. Set a free port, or unset the "
                "variable: then Flower takes 5555 or any free port."
            )

    def _take_lock(self, home: Path) -> None:
        self._lock = (home / "up.lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingsError(
                f"Another `dermq up` runs in {home}. Stop it, or set DERMQ_HOME to another folder."
            ) from None

    def _completed(self, broker: LocalBroker | None) -> Settings:
        """The settings with a password for Flower and the URL of the broker."""
        password = self.settings.flower_password or SecretStr(kept_password(self.settings.home))
        changes: dict[str, object] = {"flower_password": password}
        if broker is not None:
            changes["broker_url"] = SecretStr(broker.url)
        return self.settings.model_copy(update=changes)

    def _record_run(self, home: Path) -> None:
        """Write the file by which other commands find this system. Only this account may read its password."""
        note = home / RUN_FILE
        note.unlink(missing_ok=True)
        with os.fdopen(os.open(note, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            bundle = (self.settings.bundle or shipped_bundle()).absolute()
            broker = self.settings.resolved_broker_url()
            json.dump({"pid": os.getpid(), "broker_url": broker, "bundle": str(bundle)}, file)
        self._recorded = True

    def _add(
        self, name: str, command: list[str], extra: dict[str, str], *, stdin: str | None = None, grace: float = _GRACE
    ) -> None:
        process = _ManagedProcess(
            name=name,
            command=command,
            environment={**os.environ, **extra},
            log_file=self.logs / f"{name}.log",
            stdin=stdin,
            grace=grace,
        )
        self.processes.append(process)
        process.start()

    def _wait_for(self, name: str, answers: Callable[[], bool]) -> None:
        begun = time.monotonic()
        deadline, said = begun + _START_TIMEOUT, False
        while not answers():
            if not said and time.monotonic() - begun > _REPORT_AFTER:
                said = True
                self.say_waiting(name, _START_TIMEOUT)
            if self.stop_requested.is_set():
                raise StoppedError(f"dermq has stopped while it waited for its {name} to start.")
            process = next((each for each in self.processes if each.name == name), None)
            died = process is not None and process.process is not None and process.process.poll() is not None
            if died or time.monotonic() > deadline:
                raise DermqError(
                    f"The {name} {'died at its start' if died else f'did not answer within {_START_TIMEOUT:.0f} s'}. "
                    + (
                        f"Its log: {process.log_file}{_tail(process.log_file)}"
                        if process
                        else "Check DERMQ_BROKER_URL."
                    )
                )
            time.sleep(0.1)

    def _broker_answers(self) -> bool:
        try:
            queue_length(self._app, urgent=True)
        except BrokerError:
            return False
        return True

    def _flower_answers(self) -> bool:
        process = self.processes[-1]
        if process.process is None or process.process.poll() is not None:
            # Another program answers on that port.
            return False
        # Not the open /healthcheck: the Flower of another `dermq up`, started at the same moment, would answer it too.
        # Only our own Flower knows this password.
        password = self.settings.flower_password
        login = f"{BUILT_IN}:{password.get_secret_value() if password else ''}"
        token = base64.b64encode(login.encode()).decode()
        page = Request(f"{self.flower_url}/tasks", headers={"Authorization": f"Basic {token}"})  # noqa: S310 - our own
        try:
            # Its certificate may be of another name than this address.
            context = ssl._create_unverified_context() if page.type == "https" else None  # noqa: S323
            with urlopen(page, timeout=2, context=context) as reply:  # noqa: S310 - our own address
                return bool(reply.status == 200)
        except (URLError, OSError):
            return False

    def supervise(self, stop: threading.Event) -> None:
        """Restart processes that die, and help a worker that is stuck, until told to stop."""
        database = open_database(self.settings.resolved_database_url(), busy_seconds=1.0)
        look_at = time.monotonic() + _LOOK_FOR_STUCK
        while not stop.wait(0.5):
            for process in self.processes:
                self._restart_if_dead(process)
            if time.monotonic() >= look_at:
                look_at = time.monotonic() + _LOOK_FOR_STUCK
                self._help_stuck_worker(stuck_processes(database, self.settings.lease_seconds))

    def _help_stuck_worker(self, stuck: int) -> None:
        """Start another worker when every process of those that run is stuck. Killing them may not help."""
        workers = [process for process in self.processes if process.name.startswith("worker")]
        if stuck < len(workers) * self.settings.concurrency or len(workers) > _EXTRA_WORKERS:
            return
        name = f"worker-{len(workers) + 1}"
        log.warning("the worker is stuck, starting another one beside it", processes=stuck, process=name)
        # Its name must not be that of the first one, which still answers.
        command = [*_DERMQ, "worker", "--name", f"dermq-{len(workers) + 1}"]
        self._add(name, command, _environment(self.settings), grace=_WORKER_GRACE)

    def _restart_if_dead(self, process: _ManagedProcess) -> None:
        if process.process is None or process.process.poll() is None:
            return
        now = time.monotonic()
        if process.restart_at is None:
            process.deaths = 1 if now - process.started > _HEALTHY_AFTER else process.deaths + 1
            delay = min(_RESTART_DELAY * 2 ** (process.deaths - 1), _MAX_RESTART_DELAY)
            process.restart_at = now + delay
            log.warning(
                "process died",
                process=process.name,
                status=process.process.returncode,
                restart_in_seconds=delay,
                log=str(process.log_file),
            )
            # A worker that was killed by SIGKILL leaves its children behind.
            _kill_session(process.process)
        elif now >= process.restart_at:
            process.start()
            log.info("process restarted", process=process.name)

    def stop(self) -> None:
        """Stop every process, the broker last. The worker releases its chunks."""
        for name in _STOP_ORDER:
            for process in self.processes:
                if process.name.partition("-")[0] == name:
                    process.stop()
        if self._recorded:
            # Only its own file: a second `dermq up` that was refused must not hide the first one.
            (self.settings.home / RUN_FILE).unlink(missing_ok=True)
            self._recorded = False
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def _environment(settings: Settings) -> dict[str, str]:
    """The settings as environment variables for the child processes."""
    values: dict[str, str] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if value is not None:
            values[f"DERMQ_{name.upper()}"] = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
    return values


def _die_with_parent() -> None:
    """In the child: make Linux send SIGTERM when `dermq up` dies, however it dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _feed(stdin: IO[bytes] | None, text: str) -> None:
    if stdin is not None:
        stdin.write(text.encode())
        stdin.close()


def _kill_session(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _tail(path: Path, lines: int = 5) -> str:
    try:
        return "\n" + "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
