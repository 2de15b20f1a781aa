"""One chunk, from the claim to its end: each image ends in exactly one way, and no attempt writes what is another's."""

import multiprocessing
import os
import time
import tracemalloc
from dataclasses import replace
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from billiard.exceptions import SoftTimeLimitExceeded
from sqlalchemy import Engine, func, select

from db.clock import db_now
from db.jobs import count_images
from db.models import Chunk, Image, Job, Prediction
from db.session import open_database, read
from db.status import ChunkStatus, FailureCode, ImageStatus, JobStatus, TriageFlag, UngradableReason
from tests.integration.databases import MadeJob, change, expire_lease, row
from tests.integration.fake_scoring import (
    LIMITS,
    FakeEngine,
    Images,
    is_without_green,
    job_of,
    outcomes,
    score,
    without_green,
)
from worker.bundle import Bundle
from worker.chunk import ChunkLimits, score_chunk
from worker.errors import BundleError, EngineError
from worker.images.made_up import draw_lesion
from worker.made_up_archive import encode
from worker.scorer import Scorer


def statuses(database: Engine, made: MadeJob) -> list[str]:
    return [found.status.value for found in outcomes(database, made).values()]


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


def test_good_and_broken_images_side_by_side(sqlite_database: Engine, bundle: Bundle, archive: Path) -> None:
    jpeg = (archive / "0.jpg").read_bytes()
    (archive / "changed.jpg").write_bytes(jpeg)
    (archive / "empty.jpg").write_bytes(b"")
    (archive / "gone.jpg").write_bytes(jpeg)
    (archive / "large.bmp").write_bytes(encode(draw_lesion(9, width=600, height=600), ".bmp"))
    (archive / "letter.jpg").write_text("Dear colleague")
    (archive.parent / "outside.jpg").write_bytes(jpeg)
    (archive / "link.jpg").symlink_to("../outside.jpg")
    os.mkfifo(archive / "pipe.jpg")
    (archive / "short.jpg").write_bytes(jpeg[:3_000])
    (archive / "cap.png").write_bytes(encode(np.full((240, 300, 3), 12, np.uint8), ".png"))
    (archive / "small.png").write_bytes(encode(draw_lesion(1, width=120, height=90), ".png"))
    made = job_of(sqlite_database, archive)
    (archive / "gone.jpg").unlink()
    (archive / "changed.jpg").write_bytes(jpeg + b"\0")

    ended = score(
        sqlite_database,
        made,
        bundle,
        FakeEngine(),
        limits=ChunkLimits(batch_size=4, lease_seconds=60, time_limit=300, max_file_bytes=1_000_000),
    )
    found = outcomes(sqlite_database, made)
    assert ended == len(found) == 15
    assert {path: end.failure_code for path, end in found.items() if end.status == ImageStatus.FAILED} == {
        "changed.jpg": FailureCode.CHANGED_SINCE_SUBMISSION,
        "empty.jpg": FailureCode.TRUNCATED,
        "gone.jpg": FailureCode.MISSING,
        "large.bmp": FailureCode.TOO_LARGE,
        "letter.jpg": FailureCode.UNSUPPORTED_FORMAT,
        "link.jpg": FailureCode.OUTSIDE_ROOT,
        "pipe.jpg": FailureCode.UNREADABLE,
        "short.jpg": FailureCode.TRUNCATED,
    }
    assert {path: end.ungradable_reason for path, end in found.items() if end.status == ImageStatus.UNGRADABLE} == {
        "cap.png": UngradableReason.NO_CONTRAST,
        "small.png": UngradableReason.TOO_SMALL,
    }
    assert all(found[f"{number}.jpg"].status == ImageStatus.SCORED for number in range(5))
    assert all(end.reason for end in found.values() if end.status != ImageStatus.SCORED)
    counts = read(sqlite_database, lambda c: count_images(c, made.job_id))
    assert counts.ended == counts.submitted == 15
    assert row(sqlite_database, Chunk, made.chunk_ids[0]).status == ChunkStatus.DONE
    assert row(sqlite_database, Job, made.job_id).status == JobStatus.FINISHED


def test_a_prediction_is_the_engines_number_with_the_jobs_flag(
    sqlite_database: Engine, bundle: Bundle, tmp_path: Path
) -> None:
    for name, shift in (("dark.png", -100), ("light.png", 60)):
        picture = np.clip(draw_lesion(1, width=300, height=240).astype(int) + shift, 0, 255).astype(np.uint8)
        (tmp_path / name).write_bytes(encode(picture, ".png"))
    made = job_of(sqlite_database, tmp_path)
    assert score(sqlite_database, made, bundle, FakeEngine()) == 2
    found = outcomes(sqlite_database, made)
    for name in ("dark.png", "light.png"):
        end = found[name]
        assert end.raw_probability is not None
        assert end.probability == pytest.approx(end.raw_probability)  # this bundle's calibration changes nothing
        expected = (
            TriageFlag.HIGH_RISK
            if end.probability >= 0.5
            else TriageFlag.BORDERLINE
            if end.probability >= 0.4
            else TriageFlag.LOW_RISK
        )
        assert (end.flag, end.engine, end.bundle_sha256) == (expected, "fake 1", bundle.sha256)
    assert (found["dark.png"].flag, found["light.png"].flag) == (TriageFlag.LOW_RISK, TriageFlag.HIGH_RISK)


def test_neighbours_keep_their_own_number(sqlite_database: Engine, bundle: Bundle, archive: Path) -> None:
    """Broken images between them must not shift the probabilities of the others."""
    (archive / "2.jpg").write_bytes(b"")
    together = job_of(sqlite_database, archive)
    score(
        sqlite_database,
        together,
        bundle,
        FakeEngine(),
        limits=ChunkLimits(batch_size=16, lease_seconds=60, time_limit=300, max_file_bytes=10**7),
    )
    alone = job_of(sqlite_database, archive)
    score(
        sqlite_database,
        alone,
        bundle,
        FakeEngine(),
        limits=ChunkLimits(batch_size=1, lease_seconds=60, time_limit=300, max_file_bytes=10**7),
    )
    first, second = outcomes(sqlite_database, together), outcomes(sqlite_database, alone)
    assert {path: end.probability for path, end in first.items()} == {
        path: end.probability for path, end in second.items()
    }
    assert len({end.probability for end in first.values()}) == 5


def test_an_engine_that_fails_on_one_image_of_a_batch_fails_that_one(
    sqlite_database: Engine, bundle: Bundle, archive: Path
) -> None:
    (archive / "3.jpg").unlink()
    (archive / "3.png").write_bytes(encode(without_green(3), ".png"))

    def fail(images: Images) -> None:
        if is_without_green(images):
            raise EngineError("the model gave 1 values for 1 images, or one outside 0 to 1")

    made = job_of(sqlite_database, archive)
    engine = FakeEngine(fail)
    limits = ChunkLimits(batch_size=5, lease_seconds=60, time_limit=300, max_file_bytes=10**7)
    assert score(sqlite_database, made, bundle, engine, limits=limits) == 5
    found = outcomes(sqlite_database, made)
    assert found["3.png"].failure_code == FailureCode.ENGINE_ERROR
    assert "outside 0 to 1" in (found["3.png"].reason or "")
    assert [path for path, end in found.items() if end.status == ImageStatus.SCORED] == [
        "0.jpg",
        "1.jpg",
        "2.jpg",
        "4.jpg",
    ]
    assert row(sqlite_database, Chunk, made.chunk_ids[0]).status == ChunkStatus.DONE


def test_an_error_that_nobody_foresaw_hands_the_chunk_back_for_careful_mode(
    sqlite_database: Engine, bundle: Bundle, archive: Path
) -> None:
    def fail(images: Images) -> None:
        raise ZeroDivisionError

    made = job_of(sqlite_database, archive)
    with pytest.raises(ZeroDivisionError):
        score(sqlite_database, made, bundle, FakeEngine(fail))
    chunk = row(sqlite_database, Chunk, made.chunk_ids[0])
    assert (chunk.status, chunk.attempt, chunk.owner, chunk.hinted_at) == (ChunkStatus.WAITING, 1, None, None)
    assert score(sqlite_database, made, bundle, engine := FakeEngine()) == 5
    assert engine.batches == [1] * 5


def test_asked_to_stop_a_worker_hands_the_chunk_back_and_the_next_does_only_the_rest(
    sqlite_database: Engine, bundle: Bundle, archive: Path
) -> None:
    made = job_of(sqlite_database, archive)
    engine = FakeEngine()
    assert score(sqlite_database, made, bundle, engine, stopping=lambda: len(engine.batches) == 1) is None
    assert statuses(sqlite_database, made) == ["scored"] * 2 + ["waiting"] * 3
    chunk = row(sqlite_database, Chunk, made.chunk_ids[0])
    assert (chunk.status, chunk.attempt, chunk.owner, chunk.hinted_at) == (ChunkStatus.WAITING, 0, None, None)
    next_engine = FakeEngine()
    assert score(sqlite_database, made, bundle, next_engine) == 3
    # Not careful mode: being asked to stop is nobody's fault.
    assert next_engine.batches == [2, 1]
    assert row(sqlite_database, Job, made.job_id).status == JobStatus.FINISHED


def test_a_job_paused_under_a_workers_hands(sqlite_database: Engine, bundle: Bundle, archive: Path) -> None:
    made = job_of(sqlite_database, archive)
    engine = FakeEngine(
        lambda images: change(sqlite_database, Job, made.job_id, status=JobStatus.PAUSED) if engine.batches else None
    )
    assert score(sqlite_database, made, bundle, engine) is None
    assert statuses(sqlite_database, made) == ["scored"] * 2 + ["waiting"] * 3
    assert score(sqlite_database, made, bundle, FakeEngine()) is None
    change(sqlite_database, Job, made.job_id, status=JobStatus.RUNNING)
    assert score(sqlite_database, made, bundle, FakeEngine()) == 3
    assert row(sqlite_database, Chunk, made.chunk_ids[0]).attempt == 1


def test_a_worker_that_lost_its_lease_writes_nothing(sqlite_database: Engine, bundle: Bundle, archive: Path) -> None:
    made = job_of(sqlite_database, archive)

    def steal(images: Images) -> None:
        if engine.batches:
            change(sqlite_database, Chunk, made.chunk_ids[0], owner="thief", attempt=2)

    engine = FakeEngine(steal)
    assert score(sqlite_database, made, bundle, engine) is None
    assert engine.batches == [2, 2]
    assert statuses(sqlite_database, made) == ["scored"] * 2 + ["waiting"] * 3
    assert read(sqlite_database, lambda c: c.scalar(select(func.count()).select_from(Prediction))) == 2
    chunk = row(sqlite_database, Chunk, made.chunk_ids[0])
    assert (chunk.owner, chunk.attempt, chunk.status) == ("thief", 2, ChunkStatus.LEASED)
    assert row(sqlite_database, Job, made.job_id).status == JobStatus.RUNNING


def test_each_batch_renews_the_lease(sqlite_database: Engine, bundle: Bundle, archive: Path) -> None:
    made = job_of(sqlite_database, archive)
    late = FakeEngine(lambda images: expire_lease(sqlite_database, made.chunk_ids[0]))
    # Late, but nobody else came: the work is not thrown away.
    assert score(sqlite_database, made, bundle, late) == 5


def test_doubled_and_late_hints_do_nothing(sqlite_database: Engine, bundle: Bundle, archive: Path) -> None:
    made = job_of(sqlite_database, archive)
    second_hint: list[Any] = []

    def hint_again(images: Images) -> None:
        second_hint.append(score(sqlite_database, made, bundle, FakeEngine()))

    assert score(sqlite_database, made, bundle, FakeEngine(hint_again)) == 5
    assert second_hint == [None] * 3
    before = outcomes(sqlite_database, made)
    late = FakeEngine()
    assert score(sqlite_database, made, bundle, late) is None
    assert late.batches == []
    assert outcomes(sqlite_database, made) == before


@pytest.mark.parametrize("error", [BundleError, EngineError])
def test_a_worker_that_cannot_score_leaves_the_chunk_alone(
    sqlite_database: Engine, archive: Path, error: type[Exception]
) -> None:
    made = job_of(sqlite_database, archive)

    def no_scorer(sha256: str) -> Scorer:
        raise error(f"not {sha256}")

    with pytest.raises(error, match="not bbbb"):
        score_chunk(made.chunk_ids[0], database=sqlite_database, scorer_for=no_scorer, limits=LIMITS)
    chunk = row(sqlite_database, Chunk, made.chunk_ids[0])
    assert (chunk.status, chunk.attempt) == (ChunkStatus.WAITING, 0)
    assert row(sqlite_database, Job, made.job_id).status == JobStatus.QUEUED


def test_the_bundle_asked_for_is_the_jobs(sqlite_database: Engine, bundle: Bundle, archive: Path) -> None:
    made = job_of(sqlite_database, archive)
    asked: list[str] = []

    def scorer_for(sha256: str) -> Scorer:
        asked.append(sha256)
        return Scorer(bundle=bundle, engine=FakeEngine())

    score_chunk(made.chunk_ids[0], database=sqlite_database, scorer_for=scorer_for, limits=LIMITS)
    assert asked == ["b" * 64]


# Careful mode: after a death


def test_in_careful_mode_an_image_is_announced_before_it_is_touched(
    sqlite_database: Engine, bundle: Bundle, archive: Path
) -> None:
    made = job_of(sqlite_database, archive)
    after_a_death(sqlite_database, made)
    trails: list[list[int]] = []

    def look(images: Images) -> None:
        # On a connection of its own: what it sees is what a death would leave.
        query = select(Image.careful_starts).order_by(Image.id)
        trails.append(read(sqlite_database, lambda c: list(c.scalars(query))))

    engine = FakeEngine(look)
    assert score(sqlite_database, made, bundle, engine) == 5
    assert engine.batches == [1] * 5
    assert trails == [[1] * done + [0] * (5 - done) for done in range(1, 6)]


def test_the_first_attempt_leaves_no_trail(sqlite_database: Engine, bundle: Bundle, archive: Path) -> None:
    made = job_of(sqlite_database, archive)
    score(sqlite_database, made, bundle, FakeEngine())
    assert [row(sqlite_database, Image, image_id).careful_starts for image_id in made.image_ids] == [0] * 5


@pytest.mark.parametrize(("starts", "given_up"), [(1, False), (2, True)])
def test_an_image_in_hand_at_two_deaths_is_given_up_and_costs_no_other(
    sqlite_database: Engine, bundle: Bundle, archive: Path, starts: int, given_up: bool
) -> None:
    made = job_of(sqlite_database, archive)
    after_a_death(sqlite_database, made, attempts=1 + starts)
    change(sqlite_database, Image, made.image_ids[2], careful_starts=starts)
    engine = FakeEngine()
    assert score(sqlite_database, made, bundle, engine) == 5
    assert len(engine.batches) == (4 if given_up else 5)
    found = outcomes(sqlite_database, made)
    suspect = found.pop("2.jpg")
    assert suspect.failure_code == (FailureCode.CRASHED_WORKER if given_up else None)
    assert (suspect.reason == "workers died 2 times with this image in hand") is given_up
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


def test_a_chunk_over_its_time_limit_comes_back_in_careful_mode_and_the_slow_image_is_given_up(
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
    query = select(Image.status, Image.careful_starts).where(Image.path == "1.png")
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


def test_a_strip_a_few_pixels_high_is_ungradable_and_takes_no_memory(
    sqlite_database: Engine, bundle: Bundle, tmp_path: Path
) -> None:
    """Enlarged to the model's input, 2 x 20,000 pixels become 32 x 320,000; at 224, fifty times as many."""
    strip = np.tile(draw_lesion(1, width=200, height=150)[:2], (1, 100, 1))
    (tmp_path / "strip.png").write_bytes(encode(strip, ".png"))
    made = job_of(sqlite_database, tmp_path)
    tracemalloc.start()
    try:
        score(sqlite_database, made, bundle, FakeEngine())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert outcomes(sqlite_database, made)["strip.png"].ungradable_reason == UngradableReason.TOO_SMALL
    assert peak < 20_000_000
