"""One chunk, from the claim to its end: each image ends in exactly one way, and no attempt writes what is another's."""

import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, func, select

from db.models import Chunk, Job, Prediction
from db.progress import count_images
from db.session import read
from db.status import ChunkStatus, FailureCode, ImageStatus, JobStatus, TriageFlag, UngradableReason
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
from worker.errors import BundleError, EngineError
from worker.inference.bundle import Bundle
from worker.inference.quality_gate import QualityGate
from worker.scoring.chunk import ChunkLimits, score_chunk
from worker.scoring.loaded_model import LoadedModel
from worker.synthetic.archive import encode
from worker.synthetic.lesion import draw_lesion


def statuses(database: Engine, made: MadeJob) -> list[str]:
    return [found.status.value for found in outcomes(database, made).values()]


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
    assert counts.completed == counts.submitted == 15
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
            else TriageFlag.LOWER_PRIORITY
        )
        assert (end.flag, end.engine, end.bundle_sha256) == (expected, "fake 1", bundle.sha256)
    assert (found["dark.png"].flag, found["light.png"].flag) == (TriageFlag.LOWER_PRIORITY, TriageFlag.HIGH_RISK)


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


def test_an_unexpected_error_hands_the_chunk_back_for_isolation_mode(
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

    def no_model(sha256: str) -> LoadedModel:
        raise error(f"not {sha256}")

    with pytest.raises(error, match="not bbbb"):
        score_chunk(made.chunk_ids[0], database=sqlite_database, model_for=no_model, limits=LIMITS)
    chunk = row(sqlite_database, Chunk, made.chunk_ids[0])
    assert (chunk.status, chunk.attempt) == (ChunkStatus.WAITING, 0)
    assert row(sqlite_database, Job, made.job_id).status == JobStatus.QUEUED


def test_the_bundle_asked_for_is_the_jobs(sqlite_database: Engine, bundle: Bundle, archive: Path) -> None:
    made = job_of(sqlite_database, archive)
    asked: list[str] = []

    def model_for(sha256: str) -> LoadedModel:
        asked.append(sha256)
        return LoadedModel(bundle=bundle, engine=FakeEngine(), gate=QualityGate.load(bundle))

    score_chunk(made.chunk_ids[0], database=sqlite_database, model_for=model_for, limits=LIMITS)
    assert asked == ["b" * 64]


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
