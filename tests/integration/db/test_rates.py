"""How fast jobs and workers are, on both databases."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from db.chunks import chunks_of_job
from db.claims import claim_chunk, close_chunk
from db.models import Chunk, Image, Job
from db.outcomes import Failed, write_outcomes
from db.rates import (
    RECENT_SECONDS,
    Work,
    images_per_second,
    rate_over_time,
    rates_of_jobs,
    rates_of_workers,
    recent_work,
)
from db.session import read, transact
from db.status import ChunkStatus, FailureCode
from db.types import db_now
from tests.integration.databases import MadeJob, add_job, change

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def work(begun: float, ended: float, images: int, worker: str = "a:1") -> Work:
    """Work from and to so many seconds ago."""
    return Work(
        job_id=1,
        worker=worker,
        begun=NOW - timedelta(seconds=begun),
        ended=NOW - timedelta(seconds=ended),
        images=images,
        outcomes=2 * images,
    )


def test_the_rate_is_of_the_time_in_which_somebody_worked() -> None:
    assert images_per_second([], NOW) is None
    assert images_per_second([work(20, 10, 100)], NOW) == pytest.approx(10)
    # A minute without any worker does not count.
    assert images_per_second([work(100, 90, 100), work(30, 20, 100)], NOW) == pytest.approx(10)
    # Two workers at the same time are twice as fast.
    assert images_per_second([work(20, 10, 100), work(20, 10, 100, "b:1")], NOW) == pytest.approx(20)
    assert images_per_second([work(20, 10, 100), work(15, 5, 100, "b:1")], NOW) == pytest.approx(200 / 15)


def test_of_work_that_began_long_ago_only_the_recent_part_counts() -> None:
    begun = 2 * RECENT_SECONDS
    assert images_per_second([work(begun, 0, 1_000)], NOW) == pytest.approx(1_000 / begun)


def test_reused_images_count_for_the_time_left_only() -> None:
    assert images_per_second([work(20, 10, 100)], NOW, reused=True) == pytest.approx(20)
    (rate,) = rates_of_jobs(NOW, [work(20, 10, 100)]).values()
    assert (rate.new, rate.all) == (pytest.approx(10), pytest.approx(20))


def test_less_than_a_second_is_no_rate() -> None:
    assert images_per_second([work(1.5, 1.0, 100)], NOW) is None


def score(database: Engine, made: MadeJob, number: int, owner: str, seconds: float) -> None:
    """Claim, end and close a chunk in so many seconds."""
    chunk_id = made.chunk_ids[number]
    claim = transact(database, lambda c: claim_chunk(c, chunk_id, owner, 60))
    assert claim is not None
    images = read(
        database, lambda c: [row.id for row in c.execute(Image.__table__.select()) if row.chunk_id == chunk_id]
    )
    outcomes = [Failed(image_id=image, code=FailureCode.MISSING, sentence="gone") for image in images]
    transact(database, lambda c: write_outcomes(c, outcomes, job_id=made.job_id, bundle_id=made.bundle_id, engine=""))
    change(database, Chunk, chunk_id, claimed_at=db_now(-seconds))
    change(database, Job, made.job_id, started_at=db_now(-seconds))
    assert transact(database, lambda c: close_chunk(c, claim))


def test_rates_of_jobs_and_workers(database: Engine) -> None:
    made = add_job(database, 30, 10, 5)
    score(database, made, 0, "ward-1:7:abc", 10.0)
    score(database, made, 1, "ward-2:8:def", 10.0)
    found = read(database, recent_work)
    assert {job: rate.new for job, rate in rates_of_jobs(*found).items()} == {made.job_id: pytest.approx(4.0, rel=0.1)}
    assert {worker: rate.new for worker, rate in rates_of_workers(*found).items()} == {
        "ward-1:7": pytest.approx(3.0, rel=0.1),
        "ward-2:8": pytest.approx(1.0, rel=0.1),
    }
    points = read(database, lambda c: rate_over_time(c, made.job_id))
    assert 10 <= len(points) <= 60
    width = (points[1].at - points[0].at).total_seconds()
    assert sum(point.images_per_second for point in points) * width == pytest.approx(40, rel=0.02)


def test_the_chunks_of_a_job(database: Engine) -> None:
    made = add_job(database, 3, 2, 1, 1)
    score(database, made, 0, "ward-1:7:abc", 10.0)
    score(database, made, 1, "ward-1:7:abd", 2.0)
    assert transact(database, lambda c: claim_chunk(c, made.chunk_ids[2], "ward-2:8:x", 60))
    change(database, Chunk, made.chunk_ids[2], attempt=3)
    found = read(database, lambda c: chunks_of_job(c, made.job_id))
    assert found.by_status == {ChunkStatus.DONE: 2, ChunkStatus.LEASED: 1, ChunkStatus.WAITING: 1}
    (held,), (retried,) = found.held, found.retried
    assert (held.id, held.worker, held.attempt) == (retried.id, "ward-2:8", 3)
    assert held.lease_seconds_left == pytest.approx(60, abs=5)
    assert [chunk.id for chunk in found.slowest] == made.chunk_ids[:2]
    assert found.slowest[0].worker == "ward-1:7"


def test_a_job_that_nobody_began_has_no_rate(database: Engine) -> None:
    made = add_job(database, 1)
    assert read(database, lambda c: rate_over_time(c, made.job_id)) == []
    assert read(database, recent_work)[1] == []
