"""What a transaction leaves behind: nothing that was deleted, and no connection that a time limit struck."""

import signal
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Connection, Engine

import db.session
from db.control import cancel_job, delete_job
from db.schema import migrate
from db.session import empty_write_ahead_log, open_database, read, transact
from db.submission import NewImage
from tests.integration.databases import add_job
from worker.cli import main

ACTOR = "night-shift@ward"


def test_a_database_file_is_for_its_user_alone_and_forgets_what_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new" / "dermq.db"
    engine = open_database(f"sqlite:///{path}")
    migrate(engine)
    canary = "PATIENT-KOWALSKA-" * 8
    image = NewImage(path="a.jpg", size_bytes=1, modified_ns=1, patient_ref=canary)
    made = add_job(engine, [image])
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0
    log = path.with_name(f"{path.name}-wal")
    transact(engine, lambda c: cancel_job(c, made.job_id, actor=ACTOR))
    # Not as long as an operator is made to wait.
    monkeypatch.setattr(db.session, "SQLITE_BUSY_SECONDS", 0.1)
    impatient = open_database(f"sqlite:///{path}")

    def delete_beside(connection: Connection) -> None:
        connection.exec_driver_sql("SELECT patient_ref FROM image").all()
        assert transact(engine, lambda c: delete_job(c, made.job_id, actor=ACTOR))
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


def test_a_delete_beside_a_reader_says_what_is_left(sqlite_database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    made = add_job(sqlite_database, 1)
    transact(sqlite_database, lambda c: cancel_job(c, made.job_id, actor=ACTOR))
    monkeypatch.setenv("DERMQ_DATABASE_URL", str(sqlite_database.url))
    monkeypatch.setattr(db.session, "SQLITE_BUSY_SECONDS", 0.1)

    def delete_beside(connection: Connection) -> Result:
        connection.exec_driver_sql("SELECT patient_ref FROM image").all()
        return CliRunner().invoke(main, ["delete", "--yes", str(made.job_id)])

    deleted = read(sqlite_database, delete_beside)
    assert (deleted.exit_code, deleted.stdout) == (1, f"Job {made.job_id} is deleted.\n")
    assert "`dermq migrate` takes it away" in deleted.stderr
    migrated = CliRunner().invoke(main, ["migrate"])
    assert (migrated.exit_code, migrated.stderr) == (0, "")
