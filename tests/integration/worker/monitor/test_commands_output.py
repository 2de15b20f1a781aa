"""What `status`, `audit list` and `reconcile` print, and how they end when nothing can be printed."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console
from sqlalchemy import Engine

from db.audit import append_entry
from db.jobs import view_jobs
from db.session import read, transact
from db.status import AuditAction
from tests.integration.databases import add_job
from worker.cli import main
from worker.monitor.job_status import describe_job
from worker.monitor.summary import print_job_list

Run = Callable[..., str]


@pytest.fixture
def run(sqlite_database: Engine, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("DERMQ_DATABASE_URL", str(sqlite_database.url))
    return lambda *arguments: CliRunner().invoke(main, list(arguments), catch_exceptions=False).output


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "command", [["status"], ["status", "1"], ["status", "--json"], ["audit", "list"], ["reconcile", "1"]]
)
def test_a_full_device_is_an_error_in_words(sqlite_database: Engine, command: list[str], unbuffered: str) -> None:
    """It was a traceback, with the exit status that means "the answer is no"."""
    add_job(sqlite_database, 1)
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "worker.cli", *command],
            env={**os.environ, "DERMQ_DATABASE_URL": str(sqlite_database.url), "PYTHONUNBUFFERED": unbuffered},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (2, "dermq: the output cannot be written: No space left on device.\n")


def test_the_audit_log_is_printed_in_words(sqlite_database: Engine, run: Run) -> None:
    made = add_job(sqlite_database, 1_234)
    details = {
        AuditAction.RETRIED: {"images": 3, "skipped": 1, "codes": ["missing", "unreadable"], "request": "5f"},
        AuditAction.EXPORTED: {"images": 1_234, "failed": "No space left on device"},
    }
    for action, detail in details.items():
        transact(
            sqlite_database,
            lambda connection, action=action, detail=detail: append_entry(  # type: ignore[misc]
                connection, actor="ana@ward", action=action, job_id=made.job_id, detail=detail
            ),
        )
    header, submitted, retried, exported = run("audit", "list").splitlines()
    assert "time (UTC)" in header
    assert submitted.endswith("  submitted, 1,234 images, by test")
    assert "retried, missing and unreadable, 3 images, 1 images left alone, by ana@ward" in retried
    assert exported.endswith("  the export failed: No space left on device, by ana@ward")


def test_the_list_of_jobs_fits_80_columns_and_leaves_the_source_room(sqlite_database: Engine) -> None:
    source = "/srv/archive/dermatology/2019/export of the ward"
    add_job(sqlite_database, 1, root=source)
    jobs = [describe_job(sqlite_database, view) for view in read(sqlite_database, view_jobs)]
    text = io.StringIO()
    print_job_list(jobs, Console(file=text, width=80))
    header, line = text.getvalue().splitlines()
    assert header.split() == ["id", "state", "done", "submitted", "(UTC)", "name", "or", "source"]
    assert line.split()[1] == "stalled", "no worker has it"
    assert max(len(header), len(line)) <= 80
    # Nothing has a rate yet, so no column for it takes the source's room.
    assert line.endswith("export of the ward")
    assert line.index("…") == header.index("name or source")
