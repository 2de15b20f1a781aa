"""Real databases for tests: a PostgreSQL server of our own, and rows to begin with."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from threading import Barrier
from typing import Any, TypeVar
from uuid import uuid4

from sqlalchemy import Engine, create_engine, insert, make_url, select, text, update
from sqlalchemy.orm import DeclarativeBase

from db.audit import append_entry
from db.claims import claim_unhinted_chunks
from db.deletion import begin_deletion, delete_rows
from db.models import Chunk, Image
from db.session import transact
from db.status import AuditAction
from db.submission import NewImage, NewJob, add_chunk, begin_submission, end_submission, record_bundle
from db.types import db_now

Result = TypeVar("Result")
_START_SECONDS = 60.0


def find_postgres_binaries() -> Path | None:
    """Folder of ``initdb`` and ``postgres``, or None when there is none on this machine."""
    candidates = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if config := shutil.which("pg_config"):
        found = subprocess.run([config, "--bindir"], capture_output=True, check=False, text=True)
        candidates.insert(0, Path(found.stdout.strip()))
    if on_path := shutil.which("initdb"):
        candidates.append(Path(on_path).resolve().parent)
    for folder in candidates:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    return None


class PostgresServer:
    """A server on a socket in a private folder: no port to fight for, gone with the folder."""

    def __init__(self, binaries: Path) -> None:
        # Not pytest's folder: the server's user may not enter it, and a socket's path has 107 bytes at most.
        self._folder = Path(tempfile.mkdtemp(prefix="dermq-pg-"))
        self._numbers = count(1)
        self._binaries, self._user = binaries, dict[str, Any]()
        if os.geteuid() == 0:
            # PostgreSQL refuses to run as root.
            shutil.chown(self._folder, "postgres")
            self._user = {"user": "postgres", "group": "postgres", "extra_groups": []}
        self._data = self._folder / "data"
        # C, so that no locale of the machine decides what a test sees.
        options = ["-U", "dermq", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        made = subprocess.run(
            [binaries / "initdb", "-D", self._data, *options],
            capture_output=True,
            check=False,
            text=True,
            cwd=self._folder,
            **self._user,
        )
        if made.returncode:
            raise RuntimeError(f"initdb failed: {made.stderr}")
        self._process = self._launch()
        self._admin = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT")
        self._wait()

    def _launch(self) -> "subprocess.Popen[bytes]":
        settings = {"listen_addresses": "", "unix_socket_directories": self._folder, "fsync": "off"}
        arguments = [f"-c{name}={value}" for name, value in settings.items()]
        with (self._folder / "log").open("a") as log:
            return subprocess.Popen(
                [self._binaries / "postgres", "-D", self._data, *arguments],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                **self._user,
            )

    def crash(self) -> None:
        """End the server at once: what was not committed is gone, every connection breaks."""
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(30)

    def freeze(self) -> None:
        """SIGSTOP to the server and every session: connections stay open, new ones are taken, and nothing answers."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        # The server first: frozen, it starts no further session.
        self._process.send_signal(number)
        pid = self._process.pid
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), number)

    def start_again(self) -> None:
        """Start the server that crashed; it recovers from its log."""
        self._admin.dispose()
        self._process = self._launch()
        self._wait()

    def url(self, database: str) -> str:
        """Address of a database, for `db.session.open_database`."""
        return f"postgresql://dermq@/{database}?host={self._folder}"

    def new_database(self, template: str | None = None) -> str:
        """Make a database, empty or a copy, and give its address."""
        name = f"test_{next(self._numbers)}"
        copied = f" TEMPLATE {make_url(template).database}" if template else ""
        with self._admin.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}{copied}"))
        return self.url(name)

    def stop(self) -> None:
        """End the server and leave nothing behind."""
        self._admin.dispose()
        self.crash()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _wait(self) -> None:
        end = time.monotonic() + _START_SECONDS
        while True:
            try:
                self._admin.connect().close()
            except Exception as error:
                if self._process.poll() is not None or time.monotonic() > end:
                    said = (self._folder / "log").read_text()
                    self._process.kill()
                    raise RuntimeError(f"PostgreSQL did not start: {said}") from error
                time.sleep(0.1)
            else:
                return


@dataclass(frozen=True, kw_only=True)
class MadeJob:
    """Row ids of a job that `add_job` made."""

    job_id: int
    bundle_id: int
    chunk_ids: list[int]
    image_ids: list[int]
    #: Who was taking it in.
    submitter: str


def add_job(
    database: Engine,
    *chunks: Sequence[NewImage] | int,
    root: str = "/nowhere",
    urgent: bool = False,
    submitted: bool = True,
) -> MadeJob:
    """Record a job by the calls that intake makes.

    Args:
        chunks: the images of each, or how many to make up.
        submitted: whether its submission has ended.
    """

    submitter = f"test:0:{uuid4().hex}"

    def write(connection: Any) -> MadeJob:
        bundle_id = record_bundle(connection, sha256="b" * 64, name="synthetic", version="1")
        job = NewJob(
            root=root,
            manifest=None,
            urgent=urgent,
            bundle_id=bundle_id,
            policy="youden",
            threshold=0.5,
            borderline_threshold=0.4,
        )
        job_id = begin_submission(connection, job, submitter, 60)
        chunk_ids = []
        for number, images in enumerate(chunks):
            if isinstance(images, int):
                images = [
                    NewImage(path=f"{number}/{index}.jpg", size_bytes=None, mtime_ns=None) for index in range(images)
                ]
            chunk_ids.append(add_chunk(connection, job_id, images))
        if submitted:
            end_submission(connection, job_id, submitter)
        image_ids = list(connection.scalars(select(Image.id).where(Image.job_id == job_id).order_by(Image.id)))
        if submitted:
            detail = {"images": len(image_ids)}
            append_entry(connection, actor="test", action=AuditAction.SUBMITTED, job_id=job_id, detail=detail)
        return MadeJob(
            job_id=job_id, bundle_id=bundle_id, chunk_ids=chunk_ids, image_ids=image_ids, submitter=submitter
        )

    return transact(database, write)


def delete_whole(database: Engine, job_id: int) -> bool:
    """Delete a job as `dermq delete` does. Returns whether that was possible."""
    begun = transact(database, lambda c: begin_deletion(c, job_id, actor="test", request=uuid4().hex))
    if begun:
        delete_rows(database, job_id)
    return begun


def row(database: Engine, table: type[DeclarativeBase], row_id: int) -> Any:
    """One row as it stands committed, by attribute."""
    return transact(database, lambda connection: connection.execute(select(table).where(table.id == row_id)).one())  # type: ignore[attr-defined]


def change(database: Engine, table: type[DeclarativeBase], row_id: int, **values: Any) -> None:
    """Change one row behind everybody's back."""
    transact(database, lambda connection: connection.execute(update(table).where(table.id == row_id).values(**values)))  # type: ignore[attr-defined]


def add_row(database: Engine, table: type[DeclarativeBase], **values: Any) -> None:
    """Insert one row as it is."""
    transact(database, lambda connection: connection.execute(insert(table).values(**values)))


def expire_lease(database: Engine, chunk_id: int) -> None:
    """As if the worker had been silent for too long."""
    change(database, Chunk, chunk_id, lease_expires_at=db_now(-1))


def at_once(*works: Callable[[], Result]) -> list[Result]:
    """Run functions in threads that begin at the same moment; their results in order."""
    barrier = Barrier(len(works))

    def run(work: Callable[[], Result]) -> Result:
        barrier.wait(30)
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(run, works))


def forgotten(
    database: Engine, *, urgent: bool = False, empty: bool = False, hint_after: float = 30, limit: int = 100
) -> list[int]:
    """The chunks that a sweep takes, with the queue empty or not."""
    return transact(
        database,
        lambda c: claim_unhinted_chunks(c, urgent=urgent, hint_after=hint_after, queue_is_empty=empty, limit=limit),
    )
