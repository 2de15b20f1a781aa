"""What a transaction leaves behind: nothing that was deleted, and no connection that a time limit struck."""

import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Connection, Engine

import db.session
from db.job_control import cancel_job
from db.schema import migrate
from db.session import empty_write_ahead_log, open_database, read, transact
from db.submission import NewImage
from tests.integration.databases import add_job, delete_whole
from worker.cli import main

ACTOR = "night-shift@ward"


def test_a_database_file_is_for_its_user_alone_and_forgets_what_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new" / "dermq.db"
    engine = open_database(f"sqlite:///{path}")
    migrate(engine)
    canary = "PATIENT-KOWALSKA-" * 8
    image = NewImage(path="a.jpg", size_bytes=1, mtime_ns=1, patient_ref=canary)
    made = add_job(engine, [image])
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0
    log = path.with_name(f"{path.name}-wal")
    transact(engine, lambda c: cancel_job(c, made.job_id, actor=ACTOR, request=uuid4().hex))
    # Not as long as an operator is made to wait.
    monkeypatch.setattr(db.session, "SQLITE_BUSY_SECONDS", 0.1)
    impatient = open_database(f"sqlite:///{path}")

    def delete_beside(connection: Connection) -> None:
        connection.exec_driver_sql("SELECT patient_ref FROM image").all()
        assert delete_whole(engine, made.job_id)
        assert not empty_write_ahead_log(impatient), "somebody exports at this moment, on a view from before"

    read(engine, delete_beside)
    assert empty_write_ahead_log(impatient)
    assert canary.encode() not in path.read_bytes()
    assert not log.exists() or not log.read_bytes()
    engine.dispose()


@pytest.mark.timeout(60)
def test_a_time_limit_in_mid_statement_is_a_time_limit(database: Engine) -> None:
    """And no outage: psycopg refuses to roll back while the server is still at work on the statement."""

    class TimeLimitError(Exception):
        """As Celery raises it, out of a signal's handler."""

    def strike(*_: object) -> None:
        raise TimeLimitError

    def work(connection: Connection) -> None:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SELECT pg_sleep(20)")
        else:
            time.sleep(20)

    before = signal.signal(signal.SIGALRM, strike)
    try:
        for run in (transact, read):
            signal.setitimer(signal.ITIMER_REAL, 0.5)
            with pytest.raises(TimeLimitError):
                run(database, work)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert transact(database, lambda c: c.exec_driver_sql("SELECT 1").scalar_one()) == 1


_HOLD_READ_MARKS = """
import fcntl, sys, time
with open(sys.argv[1], "r+b") as shared_memory:
    # The marks 1 to 4 of readers, as a process holds them that is frozen while it starts the log anew.
    fcntl.lockf(shared_memory, fcntl.LOCK_EX, 4, 124)
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.timeout(60)
@pytest.mark.slow
def test_a_log_that_a_stopped_process_holds_is_waited_for(
    sqlite_database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite gives up by itself after ten seconds, and calls it no lock but its locking protocol."""
    path = str(sqlite_database.url.database)
    with closing(sqlite3.connect(path)) as other:
        # Without another connection the log would be gone, and with it the lock.
        other.execute("SELECT count(*) FROM job").fetchone()
        add_job(sqlite_database, 1)
        holder = subprocess.Popen([sys.executable, "-c", _HOLD_READ_MARKS, f"{path}-shm"], stdout=subprocess.PIPE)
        waits: list[float] = []

        def wake(seconds: float) -> None:
            waits.append(seconds)
            holder.kill()
            holder.wait()

        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            assert not empty_write_ahead_log(sqlite_database)
            monkeypatch.setattr(db.session.time, "sleep", wake)
            assert read(sqlite_database, lambda c: c.exec_driver_sql("SELECT count(*) FROM job").scalar_one()) == 1
        finally:
            holder.kill()
            holder.communicate()
    assert waits == [db.session.BACKOFF_SECONDS]


def test_a_delete_beside_a_reader_says_what_is_left(sqlite_database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    made = add_job(sqlite_database, 1)
    transact(sqlite_database, lambda c: cancel_job(c, made.job_id, actor=ACTOR, request=uuid4().hex))
    monkeypatch.setenv("DERMQ_DATABASE_URL", str(sqlite_database.url))
    monkeypatch.setattr(db.session, "SQLITE_BUSY_SECONDS", 0.1)

    def delete_beside(connection: Connection) -> Result:
        connection.exec_driver_sql("SELECT patient_ref FROM image").all()
        return CliRunner().invoke(main, ["delete", "--yes", str(made.job_id)])

    deleted = read(sqlite_database, delete_beside)
    assert (deleted.exit_code, deleted.stdout) == (1, f"Job {made.job_id} is deleted.\n")
    assert "Run `dermq migrate` when that process has ended" in deleted.stderr
    migrated = CliRunner().invoke(main, ["migrate"])
    assert (migrated.exit_code, migrated.stderr) == (0, "")
