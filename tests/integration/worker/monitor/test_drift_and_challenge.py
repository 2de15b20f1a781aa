"""`dermq drift` and `dermq challenge` on a job of synthetic images, scored with the shipped bundle."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Connection, Engine, update

from db.drift import newest_of_bundle, sample_of_job
from db.models import Job, ModelBundle, Prediction
from db.session import read, transact
from tests.integration.databases import MadeJob
from tests.integration.stub_scoring import job_of, score
from worker.cli import main
from worker.inference.bundle import load_bundle
from worker.inference.engines import load_engine
from worker.settings import load_settings, shipped_bundle
from worker.synthetic.archive import encode
from worker.synthetic.lesion import draw_lesion

IMAGES = 130
Command = Callable[..., Result]


@pytest.fixture
def dermq(sqlite_database: Engine, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setenv("DERMQ_DATABASE_URL", str(sqlite_database.url))
    load_settings.cache_clear()
    return lambda *arguments: CliRunner().invoke(main, list(map(str, arguments)))


@pytest.fixture
def job(sqlite_database: Engine, tmp_path: Path) -> MadeJob:
    """Synthetic lesions in one folder, scored by the shipped bundle."""
    archive = tmp_path / "archive"
    archive.mkdir()
    for seed in range(IMAGES):
        (archive / f"{seed}.jpg").write_bytes(encode(draw_lesion(seed, width=360, height=270), ".jpg"))
    made = job_of(sqlite_database, archive)
    bundle = load_bundle(shipped_bundle())
    chosen = bundle.thresholds("youden")

    def as_submitted(connection: Connection) -> None:
        connection.execute(update(ModelBundle).where(ModelBundle.id == made.bundle_id).values(sha256=bundle.sha256))
        connection.execute(
            update(Job)
            .where(Job.id == made.job_id)
            .values(threshold=chosen.threshold, borderline_threshold=chosen.borderline_threshold)
        )

    transact(sqlite_database, as_submitted)
    score(sqlite_database, made, bundle, load_engine("openvino", bundle))
    return made


def test_drift_and_challenge_say_what_they_find(dermq: Command, job: MadeJob, sqlite_database: Engine) -> None:
    sample = read(sqlite_database, lambda c: sample_of_job(c, job.job_id, 1_000))
    assert len(sample) > 100
    assert all(image.contrast and image.sharpness and image.ood_score is not None for image in sample)
    assert len(read(sqlite_database, lambda c: newest_of_bundle(c, job.bundle_id, 50))) == 50
    assert read(sqlite_database, lambda c: newest_of_bundle(c, 99, 50)) == []
    # Drawn lesions are none: the command says so, and by its exit status.
    found = dermq("drift", job.job_id)
    assert "sharpness strong" in found.output
    assert found.exit_code == 1

    # Against itself a challenger agrees; against the other precision nearly so.
    same = dermq("challenge", job.job_id, shipped_bundle(), "--share", 0.5)
    assert same.exit_code == 0, same.output
    assert "(100.0%)" in same.output
    assert "rank correlation: 1.000" in same.output
    other = dermq("challenge", job.job_id, shipped_bundle().parent / "ham10000-mel-nv-float32")
    assert "challenger ham10000-mel-nv-float32 11" in other.output
    before = read(sqlite_database, lambda c: sample_of_job(c, job.job_id, 1_000))
    assert before == sample
    assert "compared" in dermq("audit", "list").output


def test_rows_from_before_the_measures_and_another_bundle_are_named(
    dermq: Command, job: MadeJob, sqlite_database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    transact(
        sqlite_database, lambda c: c.execute(update(Prediction).values(contrast=None, sharpness=None, ood_score=None))
    )
    assert "contrast" not in dermq("drift", job.job_id).output
    monkeypatch.setenv("DERMQ_BUNDLE", str(shipped_bundle().parent / "ham10000-mel-nv-float32"))
    load_settings.cache_clear()
    refused = dermq("drift", job.job_id)
    assert refused.exit_code == 2
    assert "Set DERMQ_BUNDLE to the bundle of the job" in refused.stderr
    assert dermq("challenge", job.job_id, "no-bundle").exit_code == 2
