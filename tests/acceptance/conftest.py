"""A running dermq, made of real processes, for tests that treat it as its users do."""

import base64
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
from sqlalchemy import Engine

from db.session import open_database
from worker.synthetic.archive import encode
from worker.synthetic.lesion import draw_lesion

#: Short times, so that a death is noticed within a test.
IMPATIENT = {
    "DERMQ_LEASE_SECONDS": "3",
    "DERMQ_SWEEP_INTERVAL": "0.5",
    "DERMQ_HINT_TIMEOUT": "1",
    "DERMQ_CHUNK_SIZE": "16",
    "DERMQ_BATCH_SIZE": "4",
    "DERMQ_CONCURRENCY": "2",
    "DERMQ_LOG_FORMAT": "json",
}
_PATIENCE = 120.0


@dataclass(kw_only=True)
class RunningSystem:
    """`dermq up` in a home folder of its own."""

    home: Path
    environment: dict[str, str]
    process: subprocess.Popen[str]
    greeting: str

    def dermq(self, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of the operator against this system."""
        return run_dermq(self.environment, *arguments, check=check)

    @cached_property
    def database(self) -> Engine:
        """The system's database."""
        return open_database(self.environment.get("DERMQ_DATABASE_URL") or f"sqlite:///{self.home / 'dermq.db'}")

    def flower(self, path: str, *, password: str | None = None) -> str:
        """A page of Flower, asked for with the password that `dermq up` printed, or with another."""
        found = re.search(r"Flower +(\S+) +user (\S+) +password (\S+)", self.greeting)
        assert found is not None, self.greeting
        url, user, printed = found.groups()
        token = base64.b64encode(f"{user}:{printed if password is None else password}".encode()).decode()
        request = urllib.request.Request(f"{url}/{path}", headers={"Authorization": f"Basic {token}"})
        with urllib.request.urlopen(request, timeout=15) as page:
            return str(page.read().decode())

    def log(self, part: str) -> str:
        """What a part has logged so far."""
        return (self.home / "logs" / f"{part}.log").read_text()


def run_dermq(
    environment: dict[str, str], *arguments: str | Path, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a `dermq` command to its end."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "worker.cli", *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )
    if check:
        assert done.returncode == 0, f"dermq {' '.join(map(str, arguments))}:\n{done.stdout}{done.stderr}"
    return done


def environment_for(home: Path, **extra: str) -> dict[str, str]:
    """The environment of a system in ``home``, with nothing of the developer's own settings."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("DERMQ_")}
    return {**own, **IMPATIENT, "DERMQ_HOME": str(home), **extra}


@contextmanager
def running_system(home: Path, **extra: str) -> Iterator[RunningSystem]:
    """Start `dermq up`, wait until it says that it is up, stop it at the end."""
    environment = environment_for(home, **extra)
    process = subprocess.Popen(
        [sys.executable, "-u", "-P", "-m", "worker.cli", "up"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    greeting = ""
    try:
        while "next " not in greeting:
            line = process.stdout.readline()
            assert line, f"dermq up ended with {process.wait()}:\n{greeting}"
            greeting += line
        system = RunningSystem(home=home, environment=environment, process=process, greeting=greeting)
        try:
            yield system
        finally:
            system.database.dispose()
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise


@pytest.fixture
def system(tmp_path: Path) -> Iterator[RunningSystem]:
    """A system of this test's own."""
    with running_system(tmp_path / "home") as running:
        yield running


@pytest.fixture(scope="session")
def pictures() -> list[bytes]:
    """A few dozen different synthetic pictures as JPEG."""
    return [encode(draw_lesion(seed, width=360, height=270), ".jpg") for seed in range(40)]


@pytest.fixture
def archive(tmp_path: Path, pictures: list[bytes]) -> Callable[[int], Path]:
    """Makes an archive of so many files."""

    def make(count: int) -> Path:
        folder = tmp_path / "archive"
        folder.mkdir()
        for index in range(count):
            (folder / f"{index:05d}.jpg").write_bytes(pictures[index % len(pictures)])
        return folder

    return make


def until(condition: Callable[[], bool], what: str, patience: float = _PATIENCE) -> None:
    """Wait for something to become true, or fail naming it."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"waited {patience:.0f} s in vain until {what}"
        time.sleep(0.05)


def processes_of(home: Path) -> dict[int, str]:
    """Processes that run under a home folder, with their command lines."""
    found = {}
    mark = f"DERMQ_HOME={home}".encode()
    for folder in Path("/proc").iterdir():
        if not re.fullmatch(r"\d+", folder.name) or int(folder.name) == os.getpid():
            continue
        try:
            # A broker overwrites its environment with its title; it runs inside the home folder.
            inside = (folder / "cwd").readlink().is_relative_to(home)
            if inside or mark in (folder / "environ").read_bytes().split(b"\0"):
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                found[int(folder.name)] = command.decode(errors="replace")
        except (OSError, ProcessLookupError):
            continue
    return found
