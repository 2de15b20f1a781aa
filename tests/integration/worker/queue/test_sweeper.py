"""Chunks that nobody works on: which a sweep hints again, and which just wait for their turn."""

from typing import Any

import pytest
from sqlalchemy import Engine

from db.claims import unmark_hinted
from db.models import Chunk
from db.session import transact
from db.status import ChunkStatus
from db.types import db_now
from tests.integration.databases import add_job, at_once, change, forgotten


@pytest.mark.parametrize(
    ("chunk", "taken_when_busy", "taken_when_empty"),
    [
        pytest.param({"hinted_at": None}, True, True, id="never hinted"),
        pytest.param({"hinted_at": db_now(-5)}, False, False, id="hinted lately"),
        pytest.param({"hinted_at": db_now(-60)}, False, True, id="hint unanswered"),
        pytest.param(
            {"status": ChunkStatus.LEASED, "lease_expires_at": db_now(-1), "hinted_at": db_now(-60)},
            True,
            True,
            id="worker died",
        ),
        pytest.param(
            {"status": ChunkStatus.LEASED, "lease_expires_at": db_now(-1), "hinted_at": None},
            True,
            True,
            id="worker died, broker was down",
        ),
        pytest.param(
            {"status": ChunkStatus.LEASED, "lease_expires_at": db_now(-1), "hinted_at": db_now(-5)},
            True,
            True,
            id="worker died, hinted before the lease ran out",
        ),
        pytest.param(
            {"status": ChunkStatus.LEASED, "lease_expires_at": db_now(-9), "hinted_at": db_now(-5)},
            False,
            False,
            id="worker died, hinted again",
        ),
        pytest.param(
            {"status": ChunkStatus.LEASED, "lease_expires_at": db_now(-90), "hinted_at": db_now(-60)},
            False,
            True,
            id="worker died, hinted again, unanswered",
        ),
        pytest.param(
            {"status": ChunkStatus.LEASED, "lease_expires_at": db_now(60), "hinted_at": None},
            False,
            False,
            id="at work",
        ),
        pytest.param({"status": ChunkStatus.DONE, "hinted_at": None}, False, False, id="done"),
    ],
)
def test_what_a_sweep_takes(
    database: Engine, chunk: dict[str, Any], taken_when_busy: bool, taken_when_empty: bool
) -> None:
    for empty, taken in ((False, taken_when_busy), (True, taken_when_empty)):
        (chunk_id,) = add_job(database, 1).chunk_ids
        change(database, Chunk, chunk_id, **chunk)
        assert forgotten(database, empty=empty) == ([chunk_id] if taken else [])
        # What was taken is marked, so that the next sweep leaves it alone.
        assert forgotten(database, empty=empty) == []
        change(database, Chunk, chunk_id, status=ChunkStatus.DONE)


def test_a_lost_hint_is_sent_again_when_later_ones_have_arrived(database: Engine) -> None:
    """A long queue keeps its order: whoever was overtaken in it is not in it any more."""
    lost, done = add_job(database, 1, 1).chunk_ids
    (urgent,) = add_job(database, 1, urgent=True).chunk_ids
    for chunk in (lost, urgent):
        change(database, Chunk, chunk, hinted_at=db_now(-300))
    change(database, Chunk, done, status=ChunkStatus.DONE, hinted_at=db_now(-290))
    assert forgotten(database, empty=False) == [], "overtaken by less than a hint is given to be found"
    change(database, Chunk, done, hinted_at=db_now(-200))
    assert forgotten(database, urgent=True, empty=False) == [], "in the other queue"
    assert forgotten(database, empty=False) == [lost]


def test_hints_do_not_pile_up_while_no_worker_is_there(database: Engine) -> None:
    made = add_job(database, 1, 1)
    for chunk in made.chunk_ids:
        expired = {"status": ChunkStatus.LEASED, "owner": "dead", "lease_expires_at": db_now(-600)}
        change(database, Chunk, chunk, **expired, hinted_at=db_now(-900))
    assert forgotten(database, empty=True) == made.chunk_ids
    for chunk in made.chunk_ids:
        change(database, Chunk, chunk, hinted_at=db_now(-300))
    assert forgotten(database, empty=False) == []


def test_a_sweep_reads_one_queue_takes_the_oldest_and_respects_its_limit(database: Engine) -> None:
    bulk = add_job(database, 1, 1, 1).chunk_ids
    urgent = add_job(database, 1, urgent=True).chunk_ids
    transact(database, lambda c: unmark_hinted(c, [*bulk, *urgent]))
    assert forgotten(database, limit=2) == bulk[:2]
    assert forgotten(database, limit=2) == bulk[2:]
    assert forgotten(database, urgent=True) == urgent


def test_a_job_that_no_worker_can_score_does_not_starve_a_younger_one(database: Engine) -> None:
    """Its hints are refused and grow stale again, and there may be more of them than a sweep takes."""
    stuck = add_job(database, *[1] * 6).chunk_ids
    younger = add_job(database, 1, 1).chunk_ids
    taken: list[int] = []
    for ago, chunk in enumerate([*stuck, *younger]):
        change(database, Chunk, chunk, hinted_at=db_now(-900 + ago))
    for sweep in range(4):
        found = forgotten(database, empty=True, limit=2)
        taken += found
        for chunk in found:
            change(database, Chunk, chunk, hinted_at=db_now(-300 + sweep))
    assert taken == [*stuck, *younger]


def test_two_sweepers_never_take_the_same_chunk(database: Engine) -> None:
    chunk_ids = add_job(database, *[1] * 60).chunk_ids
    transact(database, lambda c: unmark_hinted(c, chunk_ids))

    def sweep_up() -> list[int]:
        taken: list[int] = []
        for _ in range(15):
            taken += forgotten(database, limit=7)
        return taken

    hauls = at_once(sweep_up, sweep_up, sweep_up)
    assert sorted(chunk for haul in hauls for chunk in haul) == chunk_ids
