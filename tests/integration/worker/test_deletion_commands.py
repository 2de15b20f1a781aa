"""`dermq prune` and `dermq delete` as their user meets them, and what is said about a job that is gone."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Engine, func, select

from db.audit import entries_of
from db.deletion import begin_deletion
from db.models import Image, Job
from db.session import read, transact
from db.status import JobStatus
from db.types import db_now
from tests.integration.databases import add_job, change
from worker.cli import main

Run = Callable[..., Result]


@pytest.fixture
def run(sqlite_database: Engine, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("DERMQ_DATABASE_URL", str(sqlite_database.url))
    return lambda *words, answer=None: CliRunner().invoke(main, list(words), input=answer)


@pytest.fixture
def jobs(sqlite_database: Engine) -> list[int]:
    """An old cancelled job, a young one, and an old one that runs."""
    made = [add_job(sqlite_database, 3).job_id for _ in range(3)]
    for job, status, days in zip(made, ("cancelled", "cancelled", "running"), (400, 10, 400), strict=True):
        change(sqlite_database, Job, job, status=JobStatus(status), finished_at=db_now(-86_400 * days))
    return made


def images_of(database: Engine, job: int) -> int:
    return read(database, lambda c: c.scalar(select(func.count()).where(Image.job_id == job))) or 0


def test_prune_deletes_the_old_job_alone_and_logs_why(sqlite_database: Engine, run: Run, jobs: list[int]) -> None:
    old, young, running = jobs
    done = run("prune", "--older-than", "365", "--yes")
    assert (done.exit_code, done.stdout) == (0, f"Deleted 1 job ({old}).\n")
    assert [images_of(sqlite_database, job) for job in (old, young, running)] == [0, 3, 3]
    entry = read(sqlite_database, lambda c: entries_of(c, old))[-1]
    assert entry.action == "deleted"
    assert '"images": 3' in entry.detail
    assert "it was older than 365 days" in entry.detail
    assert run("prune", "--older-than", "365", "--yes").stdout == "No job is older than 365 days.\n"


def test_prune_asks_and_no_answer_is_a_no(sqlite_database: Engine, run: Run, jobs: list[int]) -> None:
    for answer in ("n\n", ""):
        refused = run("prune", "--older-than", "365", answer=answer)
        assert refused.exit_code == 2
        assert f"Delete 1 job ({jobs[0]}) with all outcomes and patient references?" in refused.stdout
        assert "Nothing was deleted." in refused.stderr
    assert images_of(sqlite_database, jobs[0]) == 3


def test_a_job_that_was_retried_since_it_was_chosen_is_not_pruned(sqlite_database: Engine, jobs: list[int]) -> None:
    change(sqlite_database, Job, jobs[0], finished_at=db_now())
    begun = transact(
        sqlite_database, lambda c: begin_deletion(c, jobs[0], actor="me", request="one", older_than_days=365)
    )
    assert not begun
    assert images_of(sqlite_database, jobs[0]) == 3


def test_whoever_finishes_a_deletion_is_not_logged_as_its_author(
    sqlite_database: Engine, run: Run, jobs: list[int]
) -> None:
    young = jobs[1]
    assert transact(sqlite_database, lambda c: begin_deletion(c, young, actor="anna@ward", request="one"))
    assert run("prune", "--older-than", "365", "--yes").exit_code == 0
    assert images_of(sqlite_database, young) == 0
    entries = [entry for entry in read(sqlite_database, lambda c: entries_of(c, young)) if entry.action == "deleted"]
    assert [entry.actor for entry in entries] == ["anna@ward"]
    assert "by anna@ward" in run("status", str(young)).stderr


@pytest.mark.parametrize("days", ["0", "-1", "a year", "1e9"])
def test_prune_refuses_ages_that_make_no_sense(run: Run, days: str) -> None:
    refused = run("prune", "--older-than", days, "--yes")
    assert refused.exit_code == 2
    assert "--older-than" in refused.stderr


def test_every_command_says_when_and_by_whom_a_job_was_deleted(run: Run, jobs: list[int], tmp_path: Path) -> None:
    old = str(jobs[0])
    assert run("delete", old, "--yes").exit_code == 0
    for words in (("status", old), ("export", old, "-o", str(tmp_path / "x.csv")), ("retry", old), ("reconcile", old)):
        refused = run(*words)
        assert refused.exit_code == 2, words
        assert f"Job {old} was deleted on 2" in refused.stderr
        assert " by " in refused.stderr
        assert "The newest jobs: 3, 2." in refused.stderr
    assert "There is no job 99." in run("status", "99").stderr


def test_a_job_whose_deletion_was_interrupted_says_how_to_finish_it(
    sqlite_database: Engine, run: Run, jobs: list[int]
) -> None:
    old = jobs[0]
    change(sqlite_database, Job, old, status=JobStatus.DELETING)
    assert f"run `dermq delete {old}` to finish it" in run("status", str(old)).stdout.replace("\n", " ")
    assert "is being deleted" in run("export", str(old)).stderr
    for command in ("pause", "resume", "cancel", "retry"):
        assert run(command, str(old)).exit_code == 2
    assert run("delete", str(old), "--yes").stdout == f"Job {old} is deleted.\n"
    assert images_of(sqlite_database, old) == 0
