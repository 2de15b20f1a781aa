"""Bytes that were scored under a bundle are not inferred again, inside a job or across jobs."""

import csv
import io
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine

from db.models import Job
from db.reconciliation import find_inconsistencies
from db.session import read, transact
from db.status import FailureCode, ImageStatus, TriageFlag
from db.submission import record_bundle
from db.worklist import OutcomeRow, outcomes_by_image
from tests.integration.databases import MadeJob, change
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
from tests.picture_files import tiff
from worker.errors import EngineError
from worker.inference.bundle import Bundle
from worker.inference.engines import Inference
from worker.output.csv import write_csv
from worker.synthetic.archive import encode
from worker.synthetic.lesion import draw_lesion


class TestReuse:
    """Bytes that were scored under a bundle are not inferred again."""

    @pytest.fixture
    def twins(self, archive: Path) -> Path:
        """Five pictures, two of them twice more: once beside the first, once in a later batch."""
        (archive / "0-again.jpg").write_bytes((archive / "0.jpg").read_bytes())
        (archive / "9.jpg").write_bytes((archive / "0.jpg").read_bytes())
        return archive

    def rows(self, database: Engine, made: MadeJob) -> dict[str, OutcomeRow]:
        return {row.path: row for row in read(database, lambda c: list(outcomes_by_image(c, made.job_id)))}

    def test_inside_a_job_the_same_bytes_are_inferred_once(
        self, sqlite_database: Engine, bundle: Bundle, twins: Path
    ) -> None:
        made, engine = job_of(sqlite_database, twins), FakeEngine()
        assert score(sqlite_database, made, bundle, engine) == 7
        assert sum(engine.batches) == 5
        found = self.rows(sqlite_database, made)
        same = [found[path] for path in ("0.jpg", "0-again.jpg", "9.jpg")]
        assert len({(row.probability, row.flag, row.image_sha256) for row in same}) == 1
        assert sorted(row.reused for row in same) == [False, True, True]
        assert read(sqlite_database, lambda c: find_inconsistencies(c, made.job_id)) == []

    def test_copies_in_the_batch_that_is_prepared_meanwhile_are_inferred_once(
        self, sqlite_database: Engine, bundle: Bundle, archive: Path
    ) -> None:
        """It is prepared before the batch before it is written."""
        first = (archive / "0.jpg").read_bytes()
        for name in ("0-a.jpg", "0-b.jpg", "0-c.jpg", "0-d.jpg"):
            (archive / name).write_bytes(first)
        # The next batch has been looked up when this one is inferred.
        made, engine = job_of(sqlite_database, archive), FakeEngine(lambda images: time.sleep(0.3))
        assert score(sqlite_database, made, bundle, engine) == 9
        assert sum(engine.batches) == 5
        assert sum(bool(row.reused) for row in self.rows(sqlite_database, made).values()) == 4

    def test_a_damaged_image_that_an_earlier_version_scored_is_not_reused(
        self, sqlite_database: Engine, bundle: Bundle, archive: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = (archive / "0.jpg").read_bytes()
        (archive / "0.jpg").write_bytes(whole[: len(whole) // 2] + whole[len(whole) // 2 + 512 :])
        with monkeypatch.context() as earlier:
            earlier.setattr("worker.images.jpeg.jpeg_damage", lambda data: None)
            earlier.setattr("worker.scoring.batch.READER", 1)
            score(sqlite_database, job_of(sqlite_database, archive), bundle, FakeEngine())
        second, engine = job_of(sqlite_database, archive), FakeEngine()
        assert score(sqlite_database, second, bundle, engine) == 5
        assert engine.batches == []
        found = self.rows(sqlite_database, second)
        assert found.pop("0.jpg").failure_code == FailureCode.TRUNCATED
        assert {(row.status, row.reused) for row in found.values()} == {(ImageStatus.SCORED, True)}

    def test_a_file_of_which_an_earlier_version_read_other_pixels_is_inferred_anew(
        self, sqlite_database: Engine, bundle: Bundle, archive: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (archive / "0.jpg").unlink()
        (archive / "0.tif").write_bytes(tiff(draw_lesion(99, width=450, height=300)))
        with monkeypatch.context() as earlier:
            earlier.setattr("worker.scoring.batch.READER", 1)
            score(sqlite_database, job_of(sqlite_database, archive), bundle, FakeEngine())
        for reused in (False, True):
            again, engine = job_of(sqlite_database, archive), FakeEngine()
            score(sqlite_database, again, bundle, engine)
            assert sum(engine.batches) == (0 if reused else 1)
            assert self.rows(sqlite_database, again)["0.tif"].reused == reused

    def test_across_jobs_nothing_is_inferred_but_each_job_has_its_own_threshold(
        self, sqlite_database: Engine, bundle: Bundle, archive: Path
    ) -> None:
        first = job_of(sqlite_database, archive)
        score(sqlite_database, first, bundle, FakeEngine())
        second, engine = job_of(sqlite_database, archive), FakeEngine()
        change(sqlite_database, Job, second.job_id, threshold=0.01, borderline_threshold=0.005)
        assert score(sqlite_database, second, bundle, engine) == 5
        assert engine.batches == []
        before, after = self.rows(sqlite_database, first), self.rows(sqlite_database, second)
        assert {path: row.probability for path, row in after.items()} == {
            path: row.probability for path, row in before.items()
        }
        assert {row.flag for row in after.values()} == {TriageFlag.HIGH_RISK}
        assert {row.reused for row in after.values()} == {True}
        assert {row.engine for row in after.values()} == {"fake 1"}

    def test_a_forced_job_infers_everything(self, sqlite_database: Engine, bundle: Bundle, twins: Path) -> None:
        score(sqlite_database, job_of(sqlite_database, twins), bundle, FakeEngine())
        forced, engine = job_of(sqlite_database, twins), FakeEngine()
        change(sqlite_database, Job, forced.job_id, force=True)
        assert score(sqlite_database, forced, bundle, engine) == 7
        assert sum(engine.batches) == 7
        assert {row.reused for row in self.rows(sqlite_database, forced).values()} == {False}

    def test_another_bundle_infers_anew(self, sqlite_database: Engine, bundle: Bundle, archive: Path) -> None:
        first = job_of(sqlite_database, archive)
        score(sqlite_database, first, bundle, FakeEngine())
        other = transact(sqlite_database, lambda c: record_bundle(c, sha256="c" * 64, name="other", version="2"))
        second, engine = job_of(sqlite_database, archive), FakeEngine()
        change(sqlite_database, Job, second.job_id, bundle_id=other)
        assert score(sqlite_database, second, bundle, engine) == 5
        assert sum(engine.batches) == 5

    def test_the_twin_of_an_image_that_the_engine_refuses_fails_too(
        self, sqlite_database: Engine, bundle: Bundle, archive: Path
    ) -> None:
        data = encode(without_green(1), ".png")
        (archive / "1.png").write_bytes(data)
        (archive / "1-again.png").write_bytes(data)

        def refuse(images: Images) -> None:
            if is_without_green(images):
                raise EngineError("refused")

        made = job_of(sqlite_database, archive)
        assert score(sqlite_database, made, bundle, FakeEngine(refuse), limits=replace(LIMITS, batch_size=16)) == 7
        found = self.rows(sqlite_database, made)
        for path in ("1.png", "1-again.png"):
            assert (found[path].status, found[path].failure_code) == (ImageStatus.FAILED, FailureCode.ENGINE_ERROR)


class _SevenEngine(FakeEngine):
    """An engine of a bundle with three classes."""

    def infer(self, images: Images, *, features: bool = False, maps_from: float | None = None) -> Inference:
        inference = super().infer(images, features=features)
        melanoma = inference.probability
        table = np.stack([melanoma * 0.5, melanoma * 0.25, 1 - melanoma * 0.75], axis=1)
        return replace(inference, class_probabilities=table)


@pytest.fixture
def seven(bundle: Bundle) -> Bundle:
    """A bundle of three classes, two of them malignant."""
    changes = {
        "classes": ("mel", "bcc", "nv"),
        "malignant": ("mel", "bcc"),
        "outputs": (*bundle.manifest.outputs, "class_probabilities"),
    }
    return replace(bundle, manifest=bundle.manifest.model_copy(update=changes))


def test_all_classes_are_kept_and_reused(database: Engine, seven: Bundle, archive: Path) -> None:
    (archive / "twin.jpg").write_bytes((archive / "0.jpg").read_bytes())
    first = job_of(database, archive)
    score(database, first, seven, _SevenEngine())
    again = job_of(database, archive)
    engine = _SevenEngine()
    score(database, again, seven, engine)
    assert engine.batches == [], "nothing is inferred twice"
    for made in (first, again):
        for found in outcomes(database, made).values():
            assert found.raw_probability is not None
            raw = found.raw_probability
            assert found.class_probabilities == pytest.approx({"mel": raw / 2, "bcc": raw / 4, "nv": 1 - raw * 0.75})
            assert found.malignant_probability == pytest.approx(raw * 0.75)
    line = next(csv.DictReader(_export(database, first)))
    assert line["class_probabilities"].startswith("mel=0.")
    assert float(line["malignant_probability"]) > 0


def _export(database: Engine, made: MadeJob) -> io.StringIO:
    file = io.StringIO()
    read(database, lambda c: write_csv(outcomes_by_image(c, made.job_id), file))
    file.seek(0)
    return file


def test_a_bundle_of_two_classes_has_no_others(database: Engine, bundle: Bundle, archive: Path) -> None:
    made = job_of(database, archive)
    score(database, made, bundle, FakeEngine())
    assert {(end.class_probabilities, end.malignant_probability) for end in outcomes(database, made).values()} == {
        (None, None)
    }
