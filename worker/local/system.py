"""The whole system on one machine: broker, worker, sweeper and Flower as child processes, watched and restarted."""

import base64
import ctypes
import fcntl
import json
import os
import secrets
import signal
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

from pydantic import SecretStr

from db.schema import migrate
from db.session import open_database
from worker.errors import BrokerError, DermqError, SettingsError
from worker.local.broker import LocalBroker, free_port, is_taken, new_local_broker
from worker.logging import get_logger
from worker.monitor.flower import USER
from worker.queue.app import make_app
from worker.queue.hints import queue_length
from worker.queue.inspect import workers_answering
from worker.settings import RUN_FILE, Settings, shipped_bundle

log = get_logger(__name__)

#: Seconds that each part gets to come up.
_START_SECONDS = 60.0
#: Seconds of waiting for a part after which it is said.
_SAY_AFTER = 5.0
#: Seconds that the worker gets to finish or hand back what it has in hand; the others get less.
_WORKER_GRACE = 40.0
_GRACE = 10.0
#: Seconds before a part that died is started again; doubled at each further death, up to the second number.
_RESTART_AFTER, _RESTART_AT_MOST = 1.0, 30.0
#: A part that lived so long is taken for healthy, and its next death for the first.
_HEALTHY_AFTER = 60.0
_FLOWER_PORT = 5555
_FLOWER_ATTEMPTS = 3
#: The broker last: the worker hands its messages back to it.
_STOP_ORDER = ("flower", "sweeper", "worker", "broker")


@dataclass(kw_only=True)
class _Part:
    """A child process and how to start it again."""

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
                # Ctrl-C is for `dermq up`, which stops its parts in order.
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
            log.warning("did not stop in time, killed", part=self.name)
            _kill_session(self.process)
            self.process.wait()


class StoppedError(Exception):
    """Somebody stopped the system while it started; the text says what it waited for."""


def _log_waiting(part: str, at_most: float) -> None:
    log.info("waits for an answer", part=part, at_most_seconds=at_most)


@dataclass(kw_only=True)
class LocalSystem:
    """Starts and stops the system; a context manager.

    Args:
        settings: the broker's address in them is used when set; otherwise a broker is started.
        asked_to_stop: ends the waiting for a part that does not come up.
        say_waiting: told the name of a part that lets itself be waited for, once, and the seconds that it has.

    Raises:
        StoppedError: it was asked to stop before everything was up.
        SettingsError: another `dermq up` runs in the same home folder.
        BrokerError: no broker can be started or reached.
    """

    settings: Settings
    asked_to_stop: threading.Event = field(default_factory=threading.Event)
    say_waiting: Callable[[str, float], None] = _log_waiting
    parts: list[_Part] = field(default_factory=list)
    _lock: IO[str] | None = None
    _noted: bool = False

    @property
    def logs(self) -> Path:
        """Folder of the log files, one per part."""
        return self.settings.home / "logs"

    @property
    def flower_url(self) -> str:
        """Address of Flower."""
        return f"http://{self.settings.flower_address}:{self.settings.flower_port}"

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
            # The database inside holds patient references: nobody else on this machine may look.
            home.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.logs.mkdir(exist_ok=True, mode=0o700)
            self._take_lock(home)
        except OSError as error:
            raise SettingsError(
                f"Received: DERMQ_HOME={self.settings.home}, which cannot be used: {error.strerror}. Expected: a "
                "folder that this account may write into, or the name of a new one."
            ) from None
        self._refuse_taken_port()
        broker = None if self.settings.broker_url is not None else new_local_broker()
        self.settings = self._completed(broker)
        environment = _environment(self.settings)
        if broker is not None:
            (home / "broker").mkdir(exist_ok=True)
            self._add("broker", [str(broker.binary), "-"], {}, stdin=broker.configuration(home / "broker"))
        self._wait_for("broker", self._broker_answers)
        migrate(open_database(self.settings.resolved_database_url()))
        self._note_run(home)
        dermq = [sys.executable, "-m", "worker.cli"]
        self._add("worker", [*dermq, "worker"], environment, grace=_WORKER_GRACE)
        self._add("sweeper", [*dermq, "sweep"], environment)
        self._wait_for("worker", lambda: bool(workers_answering(make_app(self.settings), 1.0)))
        # After the worker, or its log begins with complaints that no worker answers.
        self._start_flower([*dermq, "flower"])

    def _start_flower(self, command: list[str]) -> None:
        """Start Flower on the port that was set, or on a free one: another program may take it in between."""
        chosen_by_us = self.settings.flower_port == 0
        for attempt in range(1, _FLOWER_ATTEMPTS + 1):
            if chosen_by_us:
                port = free_port(_FLOWER_PORT if attempt == 1 else 0)
                self.settings = self.settings.model_copy(update={"flower_port": port})
            self._add("flower", command, _environment(self.settings))
            try:
                self._wait_for("flower", self._flower_answers)
            except DermqError:
                if not chosen_by_us or attempt == _FLOWER_ATTEMPTS:
                    raise
                self.parts.pop().stop()
            else:
                return

    def _refuse_taken_port(self) -> None:
        """Tell of a Flower port that was set and is another program's before anything is started."""
        address, port = self.settings.flower_address, self.settings.flower_port
        if port and is_taken(address, port):
            raise SettingsError(
                f"Received: DERMQ_FLOWER_PORT={port}, which another program has taken on {address}. Expected: a free "
                "port, or the variable unset, which takes 5555 or any free one."
            )

    def _take_lock(self, home: Path) -> None:
        self._lock = (home / "up.lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingsError(
                f"Another `dermq up` runs in {home}. Stop that one, or set DERMQ_HOME to another folder."
            ) from None

    def _completed(self, broker: LocalBroker | None) -> Settings:
        """The settings with everything that was left to chance decided."""
        password = self.settings.flower_password or SecretStr(secrets.token_urlsafe(12))
        changes: dict[str, object] = {"flower_password": password}
        if broker is not None:
            changes["broker_url"] = SecretStr(broker.url)
        return self.settings.model_copy(update=changes)

    def _note_run(self, home: Path) -> None:
        """Leave word for `dermq submit` and the others; readable by this user alone, since it holds the password."""
        note = home / RUN_FILE
        note.unlink(missing_ok=True)
        with os.fdopen(os.open(note, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            bundle = (self.settings.bundle or shipped_bundle()).absolute()
            broker = self.settings.resolved_broker_url()
            json.dump({"pid": os.getpid(), "broker_url": broker, "bundle": str(bundle)}, file)
        self._noted = True

    def _add(
        self, name: str, command: list[str], extra: dict[str, str], *, stdin: str | None = None, grace: float = _GRACE
    ) -> None:
        part = _Part(
            name=name,
            command=command,
            environment={**os.environ, **extra},
            log_file=self.logs / f"{name}.log",
            stdin=stdin,
            grace=grace,
        )
        self.parts.append(part)
        part.start()

    def _wait_for(self, name: str, answers: Callable[[], bool]) -> None:
        begun = time.monotonic()
        deadline, said = begun + _START_SECONDS, False
        while not answers():
            if not said and time.monotonic() - begun > _SAY_AFTER:
                said = True
                self.say_waiting(name, _START_SECONDS)
            if self.asked_to_stop.is_set():
                raise StoppedError(f"dermq has stopped before it was up, while it waited for its {name}.")
            part = next((part for part in self.parts if part.name == name), None)
            died = part is not None and part.process is not None and part.process.poll() is not None
            if died or time.monotonic() > deadline:
                raise DermqError(
                    f"{name} {'ended at once' if died else f'did not answer within {_START_SECONDS:.0f} s'}. "
                    + (f"Its log: {part.log_file}{_tail(part.log_file)}" if part else "Check DERMQ_BROKER_URL.")
                )
            time.sleep(0.1)

    def _broker_answers(self) -> bool:
        try:
            queue_length(make_app(self.settings), urgent=True)
        except BrokerError:
            return False
        return True

    def _flower_answers(self) -> bool:
        part = self.parts[-1]
        if part.process is None or part.process.poll() is not None:
            # Whoever answers on that port is not ours.
            return False
        # Not the open /healthcheck: the Flower of another `dermq up` that was started at the same moment answers that
        # too, while ours has yet to find the port taken. Only ours knows this password.
        password = self.settings.flower_password
        login = f"{USER}:{password.get_secret_value() if password else ''}"
        token = base64.b64encode(login.encode()).decode()
        page = Request(f"{self.flower_url}/tasks", headers={"Authorization": f"Basic {token}"})  # noqa: S310 - our own
        try:
            with urlopen(page, timeout=2) as reply:  # noqa: S310 - our own http address
                return bool(reply.status == 200)
        except (URLError, OSError):
            return False

    def supervise(self, stop: threading.Event) -> None:
        """Start parts that die again, until told to stop."""
        while not stop.wait(0.5):
            for part in self.parts:
                self._look_after(part)

    def _look_after(self, part: _Part) -> None:
        if part.process is None or part.process.poll() is None:
            return
        now = time.monotonic()
        if part.restart_at is None:
            part.deaths = 1 if now - part.started > _HEALTHY_AFTER else part.deaths + 1
            delay = min(_RESTART_AFTER * 2 ** (part.deaths - 1), _RESTART_AT_MOST)
            part.restart_at = now + delay
            log.warning(
                "part died",
                part=part.name,
                status=part.process.returncode,
                restart_in_seconds=delay,
                log=str(part.log_file),
            )
            # A worker killed by -9 leaves its pool behind.
            _kill_session(part.process)
        elif now >= part.restart_at:
            part.start()
            log.info("part started again", part=part.name)

    def stop(self) -> None:
        """Stop every part, the broker last; work in hand is finished or handed back."""
        for name in _STOP_ORDER:
            for part in self.parts:
                if part.name == name:
                    part.stop()
        if self._noted:
            # Only our own: a second `dermq up` that was refused must not hide the first from the other commands.
            (self.settings.home / RUN_FILE).unlink(missing_ok=True)
            self._noted = False
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def _environment(settings: Settings) -> dict[str, str]:
    """The settings as environment variables for a child process."""
    values: dict[str, str] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if value is not None:
            values[f"DERMQ_{name.upper()}"] = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
    return values


def _die_with_parent() -> None:
    """In the child: ask Linux for SIGTERM when `dermq up` dies, however it dies."""
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
