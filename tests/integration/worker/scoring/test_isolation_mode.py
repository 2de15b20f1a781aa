"""After a death a chunk is done image by image, so that the one that killed its process costs itself alone."""

import multiprocessing
import os
import time
from dataclasses import replace
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import pytest
from billiard.exceptions import SoftTimeLimitExceeded
from sqlalchemy import Engine, select

from db.models import Chunk, Image, Job
from db.session import open_database, read
from db.status import ChunkStatus, FailureCode, ImageStatus, JobStatus
from db.types import db_now
from tests.integration.databases import MadeJob, change, expire_lease, row
from tests.integration.stub_scoring import (
    LIMITS,
    FakeEngine,
    Images,
    is_without_green,
    job_of,
    outcomes,
    score,
    without_green,
)
from worker.inference.bundle import Bundle
from worker.synthetic.archive import encode


def after_a_death(database: Engine, made: MadeJob, *, attempts: int = 1) -> None:
    """As a worker leaves a chunk that is killed: leased, with nobody to renew it."""
    change(
        database,
        Chunk,
        made.chunk_ids[0],
        status=ChunkStatus.LEASED,
        owner="dead",
        attempt=attempts,
        lease_expires_at=db_now(-1),
    )


def test_in_isolation_mode_the_start_of_an_image_is_recorded_before_it_is_read(
    sqlite_database: Engine, bundle: Bundle, archive: Path
) -> None:
    made = job_of(sqlite_database, archive)
    after_a_death(sqlite_database, made)
    trails: list[list[int]] = []

    def look(images: Images) -> None:
        # On a connection of its own: what it sees is what a death would leave.
        query = select(Image.isolation_starts).order_by(Image.id)
        trails.append(read(sqlite_database, lambda c: list(c.scalars(query))))

    engine = FakeEngine(look)
    assert score(sqlite_database, made, bundle, engine) == 5
    assert engine.batches == [1] * 5
    assert trails == [[1] * done + [0] * (5 - done) for done in range(1, 6)]


def test_the_first_attempt_leaves_no_trail(sqlite_database: Engine, bundle: Bundle, archive: Path) -> None:
    made = job_of(sqlite_database, archive)
    score(sqlite_database, made, bundle, FakeEngine())
    assert [row(sqlite_database, Image, image_id).isolation_starts for image_id in made.image_ids] == [0] * 5


@pytest.mark.parametrize(("starts", "given_up"), [(1, False), (2, True)])
def test_an_image_in_hand_at_two_deaths_is_given_up_and_costs_no_other(
    sqlite_database: Engine, bundle: Bundle, archive: Path, starts: int, given_up: bool
) -> None:
    made = job_of(sqlite_database, archive)
    after_a_death(sqlite_database, made, attempts=1 + starts)
    change(sqlite_database, Image, made.image_ids[2], isolation_starts=starts)
    engine = FakeEngine()
    assert score(sqlite_database, made, bundle, engine) == 5
    assert len(engine.batches) == (4 if given_up else 5)
    found = outcomes(sqlite_database, made)
    suspect = found.pop("2.jpg")
    assert suspect.failure_code == (FailureCode.CRASHED_WORKER if given_up else None)
    assert (suspect.reason == "2 workers crashed while they processed this image") is given_up
    assert [end.status for end in found.values()] == [ImageStatus.SCORED] * 4
    assert row(sqlite_database, Job, made.job_id).status == JobStatus.FINISHED


def test_a_poison_image_costs_itself_and_nothing_else(sqlite_database: Engine, bundle: Bundle, archive: Path) -> None:
    """Real deaths: each attempt runs in a child that the poison ends without a word."""
    (archive / "1.jpg").unlink()
    (archive / "1.png").write_bytes(encode(without_green(1), ".png"))
    made = job_of(sqlite_database, archive)

    # A fresh interpreter does the forking: this one may hold the threads of other tests' libraries.
    spawn = multiprocessing.get_context("spawn")
    codes = spawn.SimpleQueue()
    attempts = spawn.Process(target=_attempt_until_done, args=(str(sqlite_database.url), made, bundle, codes))
    attempts.start()
    attempts.join(60)
    assert attempts.exitcode == 0
    # At once, in careful mode, in careful mode again; then it is left out.
    assert codes.get() == [9, 9, 9, 0]
    codes.close()
    found = outcomes(sqlite_database, made)
    assert found.pop("1.png").failure_code == FailureCode.CRASHED_WORKER
    assert [end.status for end in found.values()] == [ImageStatus.SCORED] * 4
    assert row(sqlite_database, Job, made.job_id).status == JobStatus.FINISHED


def _die(images: Images) -> None:
    if is_without_green(images):
        os._exit(9)


def _attempt_until_done(url: str, made: MadeJob, bundle: Bundle, codes: "SimpleQueue[list[int]]") -> None:
    database, found = open_database(url), list[int]()
    while 0 not in found and len(found) < 6:
        child = os.fork()
        if child == 0:
            try:
                score(database, made, bundle, FakeEngine(_die))
                os._exit(0)
            finally:
                os._exit(1)
        found.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        expire_lease(database, made.chunk_ids[0])
    codes.put(found)


def test_a_chunk_over_its_time_limit_comes_back_in_isolation_mode_and_the_slow_image_fails(
    sqlite_database: Engine, bundle: Bundle, archive: Path
) -> None:
    (archive / "1.jpg").unlink()
    (archive / "1.png").write_bytes(encode(without_green(1), ".png"))
    made = job_of(sqlite_database, archive)

    def hang(images: Images) -> None:
        if is_without_green(images):
            raise SoftTimeLimitExceeded

    with pytest.raises(SoftTimeLimitExceeded):
        score(sqlite_database, made, bundle, FakeEngine(hang))
    chunk = row(sqlite_database, Chunk, made.chunk_ids[0])
    assert (chunk.status, chunk.attempt) == (ChunkStatus.WAITING, 1)

    # In careful mode, but the limit strikes at once: the chunk was slow, not the image that happened to be in hand.
    with pytest.raises(SoftTimeLimitExceeded):
        score(sqlite_database, made, bundle, FakeEngine(hang))
    query = select(Image.status, Image.isolation_starts).where(Image.path == "1.png")
    assert tuple(read(sqlite_database, lambda c: c.execute(query).one())) == (ImageStatus.WAITING, 0)

    limits = replace(LIMITS, time_limit=0.2)

    def hang_long(images: Images) -> None:
        if is_without_green(images):
            time.sleep(0.15)
            raise SoftTimeLimitExceeded

    with pytest.raises(SoftTimeLimitExceeded):
        score(sqlite_database, made, bundle, FakeEngine(hang_long), limits=limits)
    # The image has its end; the chunk came back, its time being spent, and the next attempt scores the rest.
    assert score(sqlite_database, made, bundle, FakeEngine(hang_long), limits=limits) is not None
    found = outcomes(sqlite_database, made)
    assert found.pop("1.png").failure_code == FailureCode.TIMED_OUT
    assert [end.status for end in found.values()] == [ImageStatus.SCORED] * 4


def test_an_image_that_raises_an_unexpected_error_ends_in_isolation_mode(
    sqlite_database: Engine, bundle: Bundle, archive: Path
) -> None:
    """Or its chunk would come back for ever: no worker dies of it, so no breadcrumb counts."""
    (archive / "1.jpg").unlink()
    (archive / "1.png").write_bytes(encode(without_green(1), ".png"))
    made = job_of(sqlite_database, archive)

    def stumble(images: Images) -> None:
        if is_without_green(images):
            raise ArithmeticError("not an EngineError")

    with pytest.raises(ArithmeticError):
        score(sqlite_database, made, bundle, FakeEngine(stumble))
    assert score(sqlite_database, made, bundle, FakeEngine(stumble)) is not None
    found = outcomes(sqlite_database, made)
    stumbled = found.pop("1.png")
    assert (stumbled.failure_code, stumbled.reason) == (
        FailureCode.ENGINE_ERROR,
        "unexpected ArithmeticError while it was scored",
    )
    assert [end.status for end in found.values()] == [ImageStatus.SCORED] * 4
    assert row(sqlite_database, Job, made.job_id).status == JobStatus.FINISHED
