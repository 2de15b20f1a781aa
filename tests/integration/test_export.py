"""`dermq export` as its user meets it: what is written, what is said about what is not in it, what the log keeps."""

import csv
import io
from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Engine

from db.claims import claim_chunk
from db.control import cancel_job, pause_job
from db.predictions import Failed, Outcome, Scored, Ungradable, write_outcomes
from db.session import transact
from db.status import FailureCode, TriageFlag, UngradableReason
from tests.integration.databases import MadeJob, add_job
from worker.cli import main
from worker.settings import load_settings

Export = Callable[..., Result]


@pytest.fixture
def export(sqlite_database: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Export]:
    """The command, on the test's database."""
    monkeypatch.setenv("DERMQ_DATABASE_URL", str(sqlite_database.url))
    load_settings.cache_clear()

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(main, ["export", *map(str, arguments)])

    yield run
    load_settings.cache_clear()


def scored(image_id: int, probability: float) -> Scored:
    flag = TriageFlag.HIGH_RISK if probability >= 0.5 else TriageFlag.LOW_RISK
    return Scored(
        image_id=image_id, image_sha256="a" * 64, raw_probability=probability, probability=probability, flag=flag
    )


def failed(image_id: int) -> Failed:
    return Failed(image_id=image_id, code=FailureCode.MISSING, sentence="it is not there")


def ungradable(image_id: int) -> Ungradable:
    return Ungradable(image_id=image_id, reason=UngradableReason.BLURRED, sentence="blurred")


def write(database: Engine, made: MadeJob, *outcomes: Outcome) -> None:
    """As a worker does that has not closed its chunk yet."""

    def work(connection) -> None:
        claim_chunk(connection, made.chunk_ids[0], "owner", 60)
        write_outcomes(connection, outcomes, bundle_id=made.bundle_id, engine="fake 1")

    transact(database, work)


def lines(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize(
    ("stop", "words"),
    [
        (pause_job, "is paused: 3 of these 5 images wait, and have no outcome until `dermq resume"),
        (cancel_job, "is cancelled: 3 of these 5 images were never looked at"),
        (None, "is running: 3 of these 5 images wait and have no outcome yet"),
    ],
)
def test_images_without_an_outcome_are_counted_on_standard_error(
    sqlite_database: Engine, export: Export, stop: Callable[..., bool] | None, words: str
) -> None:
    made = add_job(sqlite_database, 5)
    write(sqlite_database, made, scored(made.image_ids[0], 0.9), failed(made.image_ids[1]))
    if stop is not None:
        assert transact(sqlite_database, lambda c: stop(c, made.job_id, actor="test"))
    result = export(made.job_id)
    assert result.exit_code == 0
    assert f"WARNING: job {made.job_id} {words}" in result.stderr
    assert [line["status"] for line in lines(result.stdout)] == ["scored", "failed", "waiting", "waiting", "waiting"]
    assert "WARNING" not in result.stdout


def test_a_job_that_is_just_taken_in_says_what_is_missing(sqlite_database: Engine, export: Export) -> None:
    made = add_job(sqlite_database, 2, submitted=False)
    result = export(made.job_id)
    assert "images that were not taken in yet are missing" in result.stderr
    assert "2 of these 2 images wait" in result.stderr


def test_nothing_is_warned_of_when_nothing_waits(sqlite_database: Engine, export: Export) -> None:
    made = add_job(sqlite_database, 2)
    write(sqlite_database, made, scored(made.image_ids[0], 0.9), failed(made.image_ids[1]))
    result = export(made.job_id)
    assert result.stderr == f"2 images of job {made.job_id}.\n"
