"""Jobs that are scored in some hours only, on both databases."""

from datetime import time

import pytest
from sqlalchemy import Engine

from db.claims import LeaseLostError, claim_chunk, renew_lease
from db.hours import Hours, rest_and_wake
from db.jobs import view_jobs
from db.models import Job
from db.session import read, transact
from tests.integration.databases import MadeJob, add_job, change

NIGHT = "20:00-06:00"


@pytest.mark.parametrize(
    ("hours", "now", "inside"),
    [
        (NIGHT, time(20, 0), True),
        (NIGHT, time(23, 59), True),
        (NIGHT, time(0, 0), True),
        (NIGHT, time(5, 59, 59), True),
        (NIGHT, time(6, 0), False),
        (NIGHT, time(12, 0), False),
        ("08:30-17:00", time(8, 29), False),
        ("08:30-17:00", time(8, 30), True),
        ("08:30-17:00", time(17, 0), False),
        ("00:00-23:59", time(23, 58), True),
    ],
)
def test_a_span_may_go_over_midnight(hours: str, now: time, inside: bool) -> None:
    assert Hours.parse(hours).include(now) is inside


@pytest.mark.parametrize(
    "text", ["", "20-06", "20:00", "24:00-06:00", "20:60-06:00", "20:00\u201306:00", "6:00-8:00", "\n"]
)
def test_what_is_no_span_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="20:00-06:00"):
        Hours.parse(text)


def test_an_empty_span_is_refused() -> None:
    with pytest.raises(ValueError, match="same time"):
        Hours.parse("06:00-06:00")


def resting(database: Engine, made: MadeJob) -> bool:
    return read(database, lambda c: view_jobs(c, job_id=made.job_id))[0].resting


def test_a_job_rests_outside_its_hours_and_wakes_inside(database: Engine) -> None:
    made, always = add_job(database, 1, 1), add_job(database, 1)
    change(database, Job, made.job_id, hours=NIGHT)
    assert transact(database, lambda c: rest_and_wake(c, time(21))) == []
    claim = transact(database, lambda c: claim_chunk(c, made.chunk_ids[0], "me", 60))
    assert claim is not None

    assert transact(database, lambda c: rest_and_wake(c, time(6))) == [made.job_id]
    assert (resting(database, made), resting(database, always)) == (True, False)
    assert transact(database, lambda c: claim_chunk(c, made.chunk_ids[1], "me", 60)) is None
    with pytest.raises(LeaseLostError):
        transact(database, lambda c: renew_lease(c, claim, 60))

    assert transact(database, lambda c: rest_and_wake(c, time(20))) == [made.job_id]
    assert transact(database, lambda c: rest_and_wake(c, time(20))) == []
    assert transact(database, lambda c: claim_chunk(c, made.chunk_ids[1], "me", 60)) is not None
