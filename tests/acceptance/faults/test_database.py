"""The database crashed, locked and full, and migrated by several at once."""

import contextlib
import os
import re
import resource
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from db.schema import current_revision, newest_revision
from db.session import read
from tests.acceptance.conftest import until
from tests.acceptance.faults.conftest import Undisturbed
from tests.acceptance.faults.processes import FaultSystem, running_system
from tests.acceptance.faults.reconcile import check_counts, ended, predictions, still_under_way, under_way
from tests.integration.databases import PostgresServer

#: Longer than a statement waits for SQLite's writer, which is 10 s.
LOCKED = 12.0
#: Longer than a transaction is tried again, which is 3 s.
AWAY = 5.0
#: Longer than a lease of the fault tests, so that the chunks in hand are anybody's when the server answers again.
SILENCE = 14.0
#: What SQLite calls a disk without room, by which of its files hits the limit first.
REFUSED = re.compile(
    "database unavailable.*(disk I/O error|disk is full)|(disk I/O error|disk is full).*database unavailable"
)


def _outlives(system: FaultSystem, undisturbed: Undisturbed, outage: contextlib.AbstractContextManager[None]) -> None:
    """An outage in the middle of a job ends no process and loses nothing that was acknowledged."""
    worker = system.worker()
    sweeper = system.sweeper()
    job = system.submit(undisturbed.folder)
    under_way(system, job)
    acknowledged = predictions(system, job)
    with outage:
        pass
    still_under_way(system, job)
    check_counts(system, job, undisturbed.expected)
    stored = {row.id: row for row in predictions(system, job)}
    assert [stored.get(row.id) for row in acknowledged] == acknowledged
    assert worker.process.poll() is None
    assert sweeper.process.poll() is None


@pytest.mark.fault(9)
@pytest.mark.databases("postgresql", no_other=True)
def test_postgresql_crashes_and_starts_again(
    system: FaultSystem, undisturbed: Undisturbed, postgres: PostgresServer
) -> None:
    """Guards the pools and the retries, and that what was acknowledged is what is stored."""

    @contextlib.contextmanager
    def crashed() -> Iterator[None]:
        postgres.crash()
        try:
            time.sleep(AWAY)
            yield
        finally:
            postgres.start_again()

    _outlives(system, undisturbed, crashed())


@pytest.mark.fault(22)
@pytest.mark.databases("postgresql", no_other=True)
def test_postgresql_is_frozen_and_thawed(
    system: FaultSystem, undisturbed: Undisturbed, postgres: PostgresServer
) -> None:
    """Guards that silence of the database ends no image, and that whoever asks is told within seconds."""

    @contextlib.contextmanager
    def frozen() -> Iterator[None]:
        postgres.freeze()
        try:
            thaw_at = time.monotonic() + SILENCE
            asked = system.dermq("check", check=False)
            assert re.search("^FAIL +database .*timeout expired", asked.stdout, re.MULTILINE), asked.stdout
            time.sleep(max(0.0, thaw_at - time.monotonic()))
            yield
        finally:
            postgres.thaw()

    _outlives(system, undisturbed, frozen())


@pytest.mark.fault(10)
@pytest.mark.databases("sqlite", no_other=True)
def test_sqlite_is_locked_for_longer_than_a_statement_waits(system: FaultSystem, undisturbed: Undisturbed) -> None:
    """Guards the repetition of whole transactions. PostgreSQL locks rows; what its outages do is fault 9."""
    worker = system.worker()
    sweeper = system.sweeper()
    job = system.submit(undisturbed.folder)
    under_way(system, job)
    with contextlib.closing(sqlite3.connect(system.database.url.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        before = still_under_way(system, job)
        time.sleep(LOCKED)
        assert ended(system, job) == before
        other.execute("ROLLBACK")
    check_counts(system, job, undisturbed.expected)
    assert worker.process.poll() is None
    assert sweeper.process.poll() is None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        assert "CI" not in os.environ or os.geteuid() != 0, f"CI is to run this fault: {mounted.stderr}"
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.fault(10)
def test_the_disk_is_full(small_disk: Path, undisturbed: Undisturbed, tmp_path: Path) -> None:
    """Guards that an error of the database ends no image: nothing is lost, the log says why, and it goes on by itself.

    SQLite: where PostgreSQL's disk is full, its server refuses in the same way.
    """
    with running_system(tmp_path / "home", f"sqlite:///{small_disk / 'dermq.db'}") as system:
        worker = system.worker()
        sweeper = system.sweeper()
        job = system.submit(undisturbed.folder)
        under_way(system, job)
        _fill(small_disk / "ballast")
        until(lambda: REFUSED.search(worker.log()) is not None, "the worker says what is wrong")
        # Before it is asked how far it is: on a full disk not even a reader of SQLite gets in.
        (small_disk / "ballast").unlink()
        still_under_way(system, job)
        check_counts(system, job, undisturbed.expected)
        assert worker.process.poll() is None
        assert sweeper.process.poll() is None


def _fill(ballast: Path) -> None:
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(512))


@pytest.mark.fault(10)
@pytest.mark.databases("sqlite", no_other=True)
def test_files_may_not_grow(system: FaultSystem, undisturbed: Undisturbed) -> None:
    """Guards the same where the limit is one of the process (`ulimit -f`) and SQLite calls it an input/output error."""
    worker = system.worker()
    system.sweeper()
    job = system.submit(undisturbed.folder)
    under_way(system, job)
    database = Path(str(system.database.url.database))
    # The log must still be written: the limit is above its size and below the database's.
    limit = 2 * worker.log_file.stat().st_size
    assert limit < database.stat().st_size
    pids = [worker.process.pid, *worker.children()]
    for pid in pids:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    until(lambda: REFUSED.search(worker.log()) is not None, "the worker says what is wrong")
    still_under_way(system, job)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    check_counts(system, job, undisturbed.expected)


@pytest.mark.fault(18)
@pytest.mark.databases("sqlite", "postgresql")
def test_three_migrations_at_once(database_url: str, undisturbed: Undisturbed, tmp_path: Path) -> None:
    """Guards the lock that one migration at a time holds: three without it crash two."""
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    with running_system(tmp_path / "home", database_url, with_schema=False) as system:
        migrations = [system.migration(FAULT_MEET_IN=str(meeting), FAULT_MEET="3") for _ in range(3)]
        for migration in migrations:
            assert migration.process.wait(120) == 0, migration.log()
        assert len(list(meeting.iterdir())) == 3, "they did not start at once: the test proves nothing"
        assert read(system.database, current_revision) == newest_revision()
        system.worker(FAULT_SECONDS_PER_IMAGE="0")
        folder = undisturbed.copy(tmp_path / "archive", images=32)
        job = system.submit(folder)
        check_counts(system, job, undisturbed.expected, archive=folder)


@pytest.mark.fault(26)
@pytest.mark.databases("sqlite", no_other=True)
def test_the_file_of_sqlite_is_damaged(system: FaultSystem, undisturbed: Undisturbed, tmp_path: Path) -> None:
    """Guards the check of the pages: `dermq check` said ok with a third of them overwritten."""
    system.worker()
    system.sweeper()
    folder = undisturbed.copy(tmp_path / "archive", images=48)
    job = system.submit(folder)
    check_counts(system, job, undisturbed.expected, archive=folder)
    assert "its pages are whole" in system.dermq("check").stdout
    for part in system.parts:
        part.kill()
    system.database.dispose()
    file = Path(str(system.database.url.database))
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = file.read_bytes()
    damaged = bytearray(whole)
    for page in range(3, len(damaged) // 4096, 3):
        damaged[page * 4096 : (page + 1) * 4096] = b"\xa5" * 4096
    file.write_bytes(damaged)
    said = system.dermq("check", check=False)
    assert said.returncode == 1
    assert "FAIL  database" in said.stdout
    # A backup is what helps.
    file.write_bytes(whole)
    check_counts(system, job, undisturbed.expected, archive=folder)
