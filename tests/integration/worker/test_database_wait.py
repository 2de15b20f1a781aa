"""What is waited for: a slow image under its lease, a database that is away, and a stop that must not hang."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from db import claims
from db.claims import LeaseLostError, claim_chunk
from db.models import Chunk, Image, Job
from db.schema import migrate
from db.session import open_database, transact
from db.status import ChunkStatus, ImageStatus
from tests.integration.databases import MadeJob, PostgresServer, change, expire_lease, row
from tests.integration.stub_scoring import FakeEngine, Images, job_of, outcomes, score
from worker.database_check import check_database
from worker.database_wait import retry_until_available
from worker.errors import DermqError
from worker.inference.bundle import Bundle
from worker.log_throttle import LOG_INTERVAL, LogThrottle
from worker.monitor.health import CheckResult, run_checks
from worker.queue.sweeper import run_sweeper
from worker.scoring.chunk import ChunkLimits
from worker.scoring.lease_renewal import renewed
from worker.settings import Settings

SHORT_LEASE = ChunkLimits(batch_size=2, lease_seconds=1, time_limit=300, max_file_bytes=10_000_000)


def away() -> OperationalError:
    return OperationalError("SELECT 1", None, Exception("the server closed the connection"))


@pytest.mark.parametrize("attempts", [0, 1], ids=["first attempt", "careful mode"])
def test_a_slow_image_keeps_its_lease(database: Engine, bundle: Bundle, archive: Path, attempts: int) -> None:
    """It takes longer than the lease: nobody else may get the chunk, nor may the image count as a death."""
    made = job_of(database, archive)
    for _ in range(attempts):
        transact(database, lambda c: claim_chunk(c, made.chunk_ids[0], "dead", 60))
        expire_lease(database, made.chunk_ids[0])
    stolen: list[object] = []

    def be_slow(images: Images) -> None:
        if not stolen:
            time.sleep(2.5)
            stolen.append(transact(database, lambda c: claim_chunk(c, made.chunk_ids[0], "thief", 60)))

    assert score(database, made, bundle, FakeEngine(be_slow), limits=SHORT_LEASE) == 5
    assert stolen == [None]
    assert {row(database, Image, image).isolation_starts for image in made.image_ids} == {attempts}


def test_a_sweeper_without_a_database_says_how_to_get_one(tmp_path: Path) -> None:
    stop = threading.Event()
    settings = Settings(home=tmp_path / "new", sweep_interval=0.05)
    app = SimpleNamespace()
    with capture_logs() as told:
        sweeper = threading.Thread(
            target=run_sweeper, args=(open_database(settings.resolved_database_url()), app, settings, stop)
        )
        sweeper.start()
        time.sleep(1)
        stop.set()
        sweeper.join()
    (line,) = told
    assert "dermq.db does not exist yet. If the system runs already, set its DERMQ_HOME" in line["reason"]
    assert "start it with `dermq up`, or run `dermq migrate`" in line["reason"]


def test_a_lease_is_renewed_no_longer_than_allowed() -> None:
    renewals: list[float] = []
    with renewed(lambda: renewals.append(time.monotonic()), lease_seconds=0.3, at_most=0.55):
        time.sleep(1.2)
    assert 3 <= len(renewals) <= 5


def test_a_lost_lease_is_not_renewed_and_a_database_that_is_away_is_asked_again() -> None:
    asked: list[str] = []

    def renew() -> None:
        asked.append("asked")
        raise away() if len(asked) < 3 else LeaseLostError("gone")

    with renewed(renew, lease_seconds=0.15):
        time.sleep(1)
    assert len(asked) == 3


def test_a_database_that_is_away_in_mid_chunk_costs_no_image_and_no_attempt(
    sqlite_database: Engine, bundle: Bundle, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = job_of(sqlite_database, archive)
    outage = _Outage(monkeypatch, after=2, failures=4)
    with capture_logs() as logged:
        assert score(sqlite_database, made, bundle, FakeEngine()) is None
    assert outage.met == 4
    chunk = row(sqlite_database, Chunk, made.chunk_ids[0])
    assert (chunk.status, chunk.attempt, chunk.hinted_at) == (ChunkStatus.WAITING, 0, None)
    assert sum("database unavailable" in line["event"] for line in logged) == 1, "said once, not at each attempt"
    assert any(line["event"] == "database available again" for line in logged)
    assert score(sqlite_database, made, bundle, FakeEngine()) == 3
    assert all_scored(sqlite_database, made)


def test_an_unavailable_database_in_isolation_mode_is_no_crash(
    sqlite_database: Engine, bundle: Bundle, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = job_of(sqlite_database, archive)
    transact(sqlite_database, lambda c: claim_chunk(c, made.chunk_ids[0], "dead", 60))
    expire_lease(sqlite_database, made.chunk_ids[0])
    # The writing of the first outcome fails, and so does the first attempt to take the breadcrumb back.
    _Outage(monkeypatch, after=2, failures=2)
    assert score(sqlite_database, made, bundle, FakeEngine()) is None
    assert {row(sqlite_database, Image, image).isolation_starts for image in made.image_ids} == {0}
    assert score(sqlite_database, made, bundle, FakeEngine()) == 5
    assert all_scored(sqlite_database, made)


@pytest.mark.parametrize("deaths", [0, 1])
@pytest.mark.parametrize("committed", [False, True], ids=["not left", "left, the answer lost"])
def test_a_breadcrumb_that_could_not_be_left_changes_no_count_of_deaths(
    sqlite_database: Engine,
    bundle: Bundle,
    archive: Path,
    monkeypatch: pytest.MonkeyPatch,
    deaths: int,
    committed: bool,
) -> None:
    made = job_of(sqlite_database, archive)
    transact(sqlite_database, lambda c: claim_chunk(c, made.chunk_ids[0], "dead", 60))
    expire_lease(sqlite_database, made.chunk_ids[0])
    for image in made.image_ids:
        change(sqlite_database, Image, image, isolation_starts=deaths)
    # The claim comes first, the announcement of the first image second; then taking it back fails once.
    _Outage(monkeypatch, after=1, failures=2, committed=committed)
    assert score(sqlite_database, made, bundle, FakeEngine()) is None
    assert {row(sqlite_database, Image, image).isolation_starts for image in made.image_ids} == {deaths}


def test_a_breadcrumb_of_whoever_has_the_chunk_now_is_left_alone(
    sqlite_database: Engine, bundle: Bundle, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = job_of(sqlite_database, archive)
    transact(sqlite_database, lambda c: claim_chunk(c, made.chunk_ids[0], "dead", 60))
    expire_lease(sqlite_database, made.chunk_ids[0])

    def lose_it_meanwhile(connection: Any, chunk_id: int) -> list[claims.WaitingImage]:
        found = claims.waiting_images(connection, chunk_id)
        expire_lease(sqlite_database, chunk_id)
        assert transact(sqlite_database, lambda c: claim_chunk(c, chunk_id, "other", 60))
        change(sqlite_database, Image, found[0].id, isolation_starts=1)
        return found

    monkeypatch.setattr("worker.scoring.chunk.waiting_images", lose_it_meanwhile)
    assert score(sqlite_database, made, bundle, FakeEngine()) is None
    assert row(sqlite_database, Image, made.image_ids[0]).isolation_starts == 1


class _Outage:
    """The worker's writing transactions fail, from one on, for so many times; or only their answer is lost."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, after: int, failures: int, committed: bool = False) -> None:
        self.seen = self.met = 0

        def fail(database: Engine, work: Any) -> Any:
            self.seen += 1
            if after < self.seen <= after + failures:
                self.met += 1
                if committed:
                    transact(database, work)
                raise away()
            return transact(database, work)

        monkeypatch.setattr("worker.scoring.chunk.transact", fail)
        monkeypatch.setattr("worker.database_wait._WAIT", 0.01)


def all_scored(database: Engine, made: MadeJob) -> bool:
    return {found.status for found in outcomes(database, made).values()} == {ImageStatus.SCORED}


def test_who_is_asked_to_stop_waits_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()

    def work() -> None:
        raise away()

    started = time.monotonic()
    with pytest.raises(OperationalError):
        retry_until_available(work, LogThrottle(), stop.is_set)
    assert time.monotonic() - started < 10


def test_the_processes_of_a_worker_log_an_unavailable_part_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("worker.log_throttle.time.monotonic", lambda: now[0])
    throttle = LogThrottle()
    assert throttle.allow()
    forked = _ask_in_a_fork(throttle)
    assert (forked, throttle.allow()) == (False, False)
    now[0] += LOG_INTERVAL
    assert throttle.allow()
    throttle.reset()
    assert throttle.allow()


def _ask_in_a_fork(throttle: LogThrottle) -> bool:
    child = os.fork()
    if child == 0:
        os._exit(int(throttle.allow()))
    return bool(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


_HANG = """
import os, sys, time
import billiard
import worker.scoring.shutdown
worker.scoring.shutdown.STOP_SECONDS = 1.0
child = billiard.context.ForkContext().Process(target=time.sleep, args=(600,))
child.start()
print(child.pid, flush=True)
worker.scoring.shutdown.leave_in_time()
time.sleep(600)
"""


def test_a_stop_that_hangs_is_cut_short_with_its_children() -> None:
    with subprocess.Popen([sys.executable, "-c", _HANG], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            assert process.wait(30) == 1
        finally:
            process.kill()
        deadline = time.monotonic() + 10
        while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().split()[2]:
            assert time.monotonic() < deadline, "the child outlives its worker"
            time.sleep(0.05)


def test_check_says_that_a_server_has_no_connection_left(
    postgres_server: PostgresServer, migrated_postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A role without a privilege and a limit of one connection meets what everybody meets when all are taken."""
    admin = open_database(migrated_postgres)
    transact(admin, lambda c: c.exec_driver_sql("CREATE ROLE visitor LOGIN CONNECTION LIMIT 1"))
    transact(admin, lambda c: c.exec_driver_sql("GRANT SELECT ON ALL TABLES IN SCHEMA public TO visitor"))
    monkeypatch.setattr("db.session.BACKOFF_SECONDS", 0.01)
    url = migrated_postgres.replace("//dermq@", "//visitor@")
    settings = Settings(database_url=url, broker_url="memory://")  # type: ignore[arg-type]
    first = open_database(url)
    try:
        with first.connect(), pytest.raises(DermqError) as caught:
            check_database(settings)
        assert "has no free connection. Each worker process uses 3. Raise the server's max_connections" in str(
            caught.value
        )
        assert "Check DERMQ_DATABASE_URL" not in str(caught.value)
    finally:
        first.dispose()
        transact(admin, lambda c: c.exec_driver_sql("DROP OWNED BY visitor"))
        transact(admin, lambda c: c.exec_driver_sql("DROP ROLE visitor"))
        admin.dispose()


def test_check_does_not_wait_for_those_whom_it_asks_through_a_broker_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.monitor.health.workers_answers", lambda app: pytest.fail("it was asked"))
    settings = Settings(home=tmp_path, broker_url="redis://127.0.0.1:1/0")  # type: ignore[arg-type]
    found = {finding.component: finding for finding in run_checks(settings)}
    assert "does not answer" in found["broker"].text
    for part in ("workers", "sweeper"):
        assert (found[part].ok, found[part].text[:21]) == (False, "Not checked, because ")


def test_check_says_that_a_database_takes_no_writes_or_its_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=tmp_path, broker_url="memory://", database_url=f"sqlite:///{tmp_path / 'dermq.db'}")  # type: ignore[arg-type]
    database = open_database(settings.resolved_database_url())
    migrate(database)

    def found() -> CheckResult:
        return next(finding for finding in run_checks(settings) if finding.component == "database")

    assert found().ok
    with monkeypatch.context() as patched:
        patched.setattr("worker.database_check.shutil.disk_usage", lambda _: SimpleNamespace(free=7_000_000))
        assert (found().ok, found().text[:24]) == (False, "The disk of the database")
    with monkeypatch.context() as patched:
        patched.setattr("db.session.SQLITE_BUSY_SECONDS", 0.1)
        patched.setattr("db.session.BACKOFF_SECONDS", 0.01)
        with database.begin() as holder:
            holder.execute(select(Job.id))
            locked = found()
        assert "can be read, but not written" in locked.text
    database.dispose()
