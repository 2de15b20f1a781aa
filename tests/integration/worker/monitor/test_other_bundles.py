"""Jobs under another bundle than the workers' wait, and check, status, watch and the log say so."""

import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from celery import Celery
from rich.console import Console
from sqlalchemy import Engine

from db.claims import claim_chunk
from db.job_control import cancel_job, pause_job
from db.jobs import BundleWork, open_work
from db.session import read, transact
from tests.integration.databases import add_job
from tests.synthetic_bundle import make_bundle
from worker.cli.submit import _warn_of_other_bundle
from worker.errors import BundleError
from worker.inference.bundle_reference import BundleReference, configured_bundle, running_bundle
from worker.log_throttle import LOG_INTERVAL
from worker.logging import configure_logging
from worker.monitor.health import CheckResult, run_checks
from worker.monitor.job_status import describe_job, find_job
from worker.queue.inspect import WorkerAnswer, workers_answers
from worker.settings import RUN_FILE, Settings, load_settings

JOBS = BundleReference(sha256="b" * 64, name="synthetic", version="1")
OTHER = BundleReference(sha256="c" * 64, name="other", version="2")


def finding_on(
    workers: dict[str, BundleReference | None], database: Engine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> CheckResult:
    """What `dermq check` says of workers with these bundles, where the bundle here is the jobs'."""
    answers = {name: WorkerAnswer(bundle=bundle) for name, bundle in workers.items()}
    monkeypatch.setattr("worker.monitor.health.workers_answers", lambda app: answers)
    monkeypatch.setattr("worker.monitor.health.configured_bundle", lambda settings: JOBS)
    for part in ("bundle", "broker"):
        monkeypatch.setattr(f"worker.monitor.health._check_{part}", lambda *_: "not asked here")
    settings = Settings(home=home, database_url=str(database.url), broker_url="redis://127.0.0.1:1/0")  # type: ignore[arg-type]
    (finding,) = [finding for finding in run_checks(settings) if finding.component == "workers"]
    return finding


def test_open_work_is_what_a_worker_could_claim(database: Engine) -> None:
    jobs = [add_job(database, 1).job_id for _ in range(4)]
    assert transact(database, lambda c: pause_job(c, jobs[0], actor="test", request=uuid4().hex))
    assert transact(database, lambda c: cancel_job(c, jobs[1], actor="test", request=uuid4().hex))
    assert read(database, open_work) == [BundleWork(sha256="b" * 64, name="synthetic", version="1", jobs=jobs[2:])]


@pytest.mark.parametrize(
    ("workers", "well", "words"),
    [
        ({"dermq@a": JOBS}, True, "1 answering: dermq@a"),
        ({"dermq@a": OTHER, "dermq@b": JOBS}, True, "2 answering"),
        (
            {"dermq@a": OTHER},
            False,
            "with the bundle other 2 (cccccccccccc). No worker has the bundle of these jobs: synthetic 1",
        ),
        # An older version does not tell.
        ({"dermq@a": OTHER, "dermq@b": None}, True, "2 answering"),
        ({}, False, "No worker answered"),
    ],
)
def test_check_names_the_jobs_that_wait_for_another_bundle(
    sqlite_database: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    workers: dict[str, BundleReference | None],
    well: bool,
    words: str,
) -> None:
    made = add_job(sqlite_database, 2)
    finding = finding_on(workers, sqlite_database, tmp_path, monkeypatch)
    assert (finding.ok, words in finding.text) == (well, True), finding.text
    if not well and workers:
        assert f"job {made.job_id}. Start a worker with that bundle (DERMQ_BUNDLE)" in finding.text


@pytest.mark.parametrize(
    ("workers", "well"), [({"dermq@a": OTHER}, False), ({"dermq@a": OTHER, "dermq@b": JOBS}, True)]
)
def test_check_says_when_no_worker_has_what_is_submitted_under_here(
    sqlite_database: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    workers: dict[str, BundleReference | None],
    well: bool,
) -> None:
    """Before a job is submitted that would wait for ever."""
    finding = finding_on(workers, sqlite_database, tmp_path, monkeypatch)
    told = "with the bundle other 2 (cccccccccccc), but the bundle here is synthetic 1 (bbbbbbbbbbbb)" in finding.text
    assert (finding.ok, told) == (well, not well), finding.text


def test_a_terminal_with_another_bundle_than_the_running_system_names_both(
    sqlite_database: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In it the job's bundle is the one that is named, and no worker of `dermq up` has it."""
    running = make_bundle(tmp_path / "running", name="running", version="7")
    (tmp_path / RUN_FILE).write_text(json.dumps({"bundle": str(running), "pid": os.getpid()}))
    monkeypatch.setenv("DERMQ_HOME", str(tmp_path))
    monkeypatch.setenv("DERMQ_BUNDLE", str(make_bundle(tmp_path / "mine", name="mine", version="8")))
    load_settings.cache_clear()
    made = add_job(sqlite_database, 1)
    why = describe_job(sqlite_database, find_job(sqlite_database, made.job_id)).stalled
    assert why is not None
    assert "the one here is running 7 (" in why
    console = Console(file=io.StringIO(), width=1000)
    _warn_of_other_bundle(load_settings(), console)
    assert "needs the bundle mine 8 (" in console.file.getvalue()  # type: ignore[attr-defined]
    assert "runs with running 7 (" in console.file.getvalue()  # type: ignore[attr-defined]
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    (tmp_path / RUN_FILE).write_text(json.dumps({"bundle": str(running), "pid": gone.pid}))
    assert running_bundle(load_settings()) is None, "it was killed and left its note"
    monkeypatch.delenv("DERMQ_BUNDLE")
    load_settings.cache_clear()
    silent = Console(file=io.StringIO())
    _warn_of_other_bundle(load_settings(), silent)
    assert silent.file.getvalue() == ""  # type: ignore[attr-defined]


def test_a_job_says_which_bundle_it_waits_for_until_a_worker_has_it(
    sqlite_database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = add_job(sqlite_database, 1)
    load_settings.cache_clear()
    why = describe_job(sqlite_database, find_job(sqlite_database, made.job_id)).stalled
    assert why is not None
    assert (
        f"It needs the bundle synthetic 1 (bbbbbbbbbbbb), but the one here is {configured_bundle(load_settings())}"
        in why
    )
    monkeypatch.setattr("worker.inference.bundle_reference.configured_bundle", lambda settings: JOBS)
    why = describe_job(sqlite_database, find_job(sqlite_database, made.job_id)).stalled
    assert why is not None
    assert "No worker is scoring it" in why
    assert transact(sqlite_database, lambda c: claim_chunk(c, made.chunk_ids[0], "me", 60))
    assert describe_job(sqlite_database, find_job(sqlite_database, made.job_id)).stalled is None


def test_a_broker_that_is_away_has_no_workers(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(app.control, "broadcast", away)
    assert workers_answers(app) == {}


def test_a_worker_without_the_bundle_says_so_once_a_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [1_000.0]
    monkeypatch.setattr("worker.log_throttle.time.monotonic", lambda: now[0])
    root, trace = logging.getLogger(), logging.getLogger("celery.app.trace")
    before = root.handlers[:], root.level, trace.filters[:]
    try:
        configure_logging(Settings(log_format="json"))

        def fail(error: Exception) -> None:
            try:
                raise error
            except Exception:
                trace.error("Task %s raised unexpected", "dermq.score_chunk", exc_info=sys.exc_info())

        for _ in range(5):
            fail(BundleError("this worker has another bundle"))
        fail(ArithmeticError("something else"))
        now[0] += LOG_INTERVAL
        fail(BundleError("this worker has another bundle"))
    finally:
        root.handlers[:], trace.filters[:] = before[0], before[2]
        root.setLevel(before[1])
    said = capsys.readouterr().err.splitlines()
    assert ["BundleError" in line for line in said] == [True, False, True]
