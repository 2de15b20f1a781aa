"""What a watched job says of itself."""

import io
import threading
from pathlib import Path
from uuid import uuid4

import pytest
from celery import Celery
from rich.console import Console
from sqlalchemy import Engine

from db.job_control import cancel_job
from db.jobs import JobFilter
from db.session import transact
from tests.integration.submissions import put, submission
from worker.inference.bundle import Bundle
from worker.intake.submission import submit
from worker.monitor import terminal_progress
from worker.monitor.job_status import JobList, describe_jobs


def test_a_log_says_once_why_a_job_is_stalled(
    sqlite_database: Engine, app: Celery, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was told with every line, which filled a night's log with one sentence."""
    intake = submit(submission(put(tmp_path, "a.jpg")), database=sqlite_database, app=app, bundle=bundle)
    for name, seconds in (("_LINE_INTERVAL", 0.0), ("_POLL_INTERVAL", 0.0), ("_STALL_AFTER", -1.0)):
        monkeypatch.setattr(terminal_progress, name, seconds)
    asked = []

    def describe(database: Engine, wanted: JobFilter, *, limit: int) -> JobList:
        asked.append(limit)
        if len(asked) == 5:
            transact(database, lambda c: cancel_job(c, intake.job_id, actor="made up", request=uuid4().hex))
        return describe_jobs(database, wanted, limit=limit)

    monkeypatch.setattr(terminal_progress, "describe_jobs", describe)
    said = io.StringIO()
    terminal_progress.watch(sqlite_database, [intake.job_id], Console(file=said, width=400))
    assert len(asked) >= 5
    # A line that says the same is not printed again.
    assert said.getvalue().count("0 of 1") == 2
    assert said.getvalue().count("No worker is scoring it") == 1


def test_a_narrow_terminal_says_once_and_in_full_why_a_job_is_stalled(
    sqlite_database: Engine, app: Celery, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the bar it was cut off before it said what to do."""
    intake = submit(submission(put(tmp_path, "a.jpg")), database=sqlite_database, app=app, bundle=bundle)
    for name, seconds in (("_POLL_INTERVAL", 0.1), ("_STALL_AFTER", -1.0)):
        monkeypatch.setattr(terminal_progress, name, seconds)
    cancel = threading.Timer(
        1.0,
        lambda: transact(
            sqlite_database, lambda other: cancel_job(other, intake.job_id, actor="made up", request=uuid4().hex)
        ),
    )
    cancel.start()
    said = io.StringIO()
    terminal_progress.watch(sqlite_database, [intake.job_id], Console(file=said, width=80, force_terminal=True))
    cancel.join()
    assert " ".join(said.getvalue().split()).count("`dermq cancel 1` and submit again.") == 1
