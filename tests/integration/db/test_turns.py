"""Whose turn it is when a hint arrives, on both databases."""

import threading
import time
from collections import Counter

import pytest
from sqlalchemy import Engine, select, update

from db.claims import Claim, claim_chunk, claim_unhinted_chunks
from db.job_control import pause_job
from db.models import Chunk, Job
from db.session import read, transact
from db.status import ChunkStatus
from db.turns import bundle_for_hint, take_turn
from db.types import db_now
from tests.integration.databases import MadeJob, add_job, change


def take(database: Engine, chunk_id: int, owner: str = "me") -> Claim | None:
    return transact(database, lambda c: take_turn(c, chunk_id, owner, 60))


def hinted(database: Engine, made: MadeJob) -> list[object]:
    query = select(Chunk.hinted_at).where(Chunk.id.in_(made.chunk_ids)).order_by(Chunk.id)
    return read(database, lambda c: list(c.scalars(query)))


def test_one_job_alone_takes_the_hinted_chunk(database: Engine) -> None:
    made = add_job(database, 1, 1, 1)
    for chunk_id in reversed(made.chunk_ids):
        claim = take(database, chunk_id)
        assert claim is not None
        assert claim.chunk_id == chunk_id
    assert take(database, made.chunk_ids[0]) is None, "all are taken"


def test_a_job_without_workers_comes_before_one_that_has_some(database: Engine) -> None:
    first, second = add_job(database, 1, 1, 1), add_job(database, 1, 1)
    taken = [take(database, chunk_id) for chunk_id in first.chunk_ids[:2]]
    assert Counter(claim.job_id for claim in taken if claim) == {first.job_id: 1, second.job_id: 1}
    # Each has one: whichever is next, both have a chunk of the four that follow.
    rest = [take(database, first.chunk_ids[0]) for _ in range(3)]
    assert Counter(claim.job_id for claim in [*taken, *rest] if claim) == {first.job_id: 3, second.job_id: 2}
    assert take(database, first.chunk_ids[0]) is None


def test_the_hints_of_two_chunks_are_exchanged(database: Engine) -> None:
    first, second = add_job(database, 1, 1), add_job(database, 1)
    change(database, Chunk, first.chunk_ids[0], hinted_at=db_now(-100))
    change(database, Chunk, second.chunk_ids[0], hinted_at=None)
    claim = take(database, first.chunk_ids[1])
    while claim is not None and claim.job_id == first.job_id:
        # Chance took the job itself: now it has a worker, and the other one none.
        claim = take(database, first.chunk_ids[0])
    assert claim is not None
    assert claim.chunk_id == second.chunk_ids[0]
    assert hinted(database, second) != [None], "the consumed message counts for the chunk that was taken"


def test_a_hint_whose_chunk_is_done_serves_another(database: Engine) -> None:
    made = add_job(database, 1, 1)
    change(database, Chunk, made.chunk_ids[0], status=ChunkStatus.DONE)
    claim = take(database, made.chunk_ids[0])
    assert claim is not None
    assert claim.chunk_id == made.chunk_ids[1]
    assert take(database, made.chunk_ids[0]) is None


def test_urgent_and_bulk_jobs_and_other_bundles_do_not_mix(database: Engine) -> None:
    bulk, urgent = add_job(database, 1), add_job(database, 1, urgent=True)
    change(database, Chunk, bulk.chunk_ids[0], status=ChunkStatus.DONE)
    assert take(database, bulk.chunk_ids[0]) is None
    assert read(database, lambda c: bundle_for_hint(c, bulk.chunk_ids[0])) is None
    assert read(database, lambda c: bundle_for_hint(c, urgent.chunk_ids[0])) == "b" * 64


@pytest.mark.parametrize("how", ["paused", "resting"])
def test_a_job_that_rests_gives_its_turn_to_another(database: Engine, how: str) -> None:
    resting, other = add_job(database, 1), add_job(database, 1)
    if how == "paused":
        assert transact(database, lambda c: pause_job(c, resting.job_id, actor="test", request="1"))
    else:
        transact(database, lambda c: c.execute(update(Job).where(Job.id == resting.job_id).values(resting=True)))
    claim = take(database, resting.chunk_ids[0])
    assert claim is not None
    assert claim.job_id == other.job_id
    assert take(database, resting.chunk_ids[0]) is None
    assert (
        transact(
            database,
            lambda c: claim_unhinted_chunks(c, urgent=False, hint_after=-60, queue_is_empty=True, limit=9),
        )
        == []
    ), "no hint for a job that rests"


def test_an_expired_lease_is_followed(database: Engine) -> None:
    made = add_job(database, 1)
    assert take(database, made.chunk_ids[0], "dead")
    assert take(database, made.chunk_ids[0], "me") is None
    change(database, Chunk, made.chunk_ids[0], lease_expires_at=db_now(-1))
    claim = take(database, made.chunk_ids[0], "me")
    assert claim is not None
    assert claim.attempt == 2


def test_a_dead_worker_does_not_count(database: Engine) -> None:
    """Its job got no turn until the other one was done."""
    first, second = add_job(database, 1, 1, 1), add_job(database, 1, 1, 1)
    assert transact(database, lambda c: claim_chunk(c, first.chunk_ids[0], "dead", 60))
    change(database, Chunk, first.chunk_ids[0], lease_expires_at=db_now(-100))
    claim = transact(database, lambda c: claim_chunk(c, second.chunk_ids[0], "alive", 60))
    assert claim is not None
    claim = take(database, second.chunk_ids[1])
    assert claim is not None
    assert claim.job_id == first.job_id
    # Its hint comes once: it is followed at once, whoever has more workers.
    claim = take(database, first.chunk_ids[0])
    assert claim is not None
    assert claim.chunk_id == first.chunk_ids[0]


@pytest.mark.parametrize("workers", [4, 12])
def test_no_message_is_lost_and_nobody_waits_for_another(database: Engine, workers: int) -> None:
    """As many messages as chunks, followed as `score_chunk` does. On PostgreSQL, two workers waited for one another."""
    jobs = [add_job(database, *[1] * 40) for _ in range(2)]
    hints = [chunk_id for made in jobs for chunk_id in made.chunk_ids]
    taken: list[int] = []

    def work(number: int) -> None:
        for chunk_id in hints[number::workers]:
            for _ in range(50):
                claim = take(database, chunk_id, f"worker {number}")
                if claim is not None:
                    taken.append(claim.chunk_id)
                    break
                if read(database, lambda c, hint=chunk_id: bundle_for_hint(c, hint)) is None:
                    break
                time.sleep(0.01)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(hints)


def test_workers_that_follow_hints_at_once_take_each_chunk_once(database: Engine) -> None:
    jobs = [add_job(database, *[1] * 10) for _ in range(2)]
    hints = [chunk_id for made in jobs for chunk_id in made.chunk_ids]
    taken: list[Claim | None] = []

    def work(number: int) -> None:
        taken.extend([take(database, chunk_id, f"worker {number}") for chunk_id in hints[number::4]])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [claim.chunk_id for claim in taken if claim is not None]
    assert len(found) == len(set(found))
    # A worker may find that another was faster; the sweeper sends such hints again.
    while claim := take(database, hints[0], "the sweeper's hint"):
        found.append(claim.chunk_id)
    assert sorted(found) == sorted(hints)
