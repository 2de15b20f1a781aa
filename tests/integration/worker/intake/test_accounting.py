"""Everything in a source is accounted for: images, what is passed over, and what fails before a worker reads it."""

import json
from pathlib import Path

import pytest
from celery import Celery
from click.testing import CliRunner
from sqlalchemy import Engine, select

from db.audit import entries_of
from db.claims import waiting_images
from db.jobs import view_jobs
from db.models import Chunk, Image, Job
from db.session import read
from db.status import FailureCode, ImageStatus
from tests.integration.submissions import paths, put, rows_in, submission
from worker.cli import main
from worker.inference.bundle import Bundle
from worker.intake.sources.passed_over import Selection
from worker.intake.submission import submit
from worker.settings import load_settings


def test_what_was_passed_over_is_kept_with_the_job_and_in_the_audit_log(
    database: Engine, app: Celery, bundle: Bundle, tmp_path: Path
) -> None:
    names = (
        "a.jpg",
        "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg",
        "._a.jpg",
        "b.heic",
        "c.heic",
        "letter.txt",
        "x_mask.png",
        "x.png",
    )
    source = put(tmp_path / "in", *names)
    intake = submit(submission(source), database=database, app=app, bundle=bundle)
    expected = {"unread: .heic": 2, "masks": 1, "system: @eaDir": 1, "system: ._*": 1, "other files": 1}
    (job,) = read(database, lambda c: view_jobs(c))
    assert job.passed_over == expected
    (entry,) = read(database, lambda c: entries_of(c, intake.job_id))
    assert json.loads(entry.detail)["passed_over"] == expected
    notes = " ".join(intake.notes())
    assert "WARNING: 2 pictures (2 .heic) of formats that are not read NOT submitted" in notes
    assert paths(database, intake) == ["a.jpg", "x.png"]


def test_with_strict_pictures_that_are_not_read_become_images(
    sqlite_database: Engine, app: Celery, bundle: Bundle, tmp_path: Path
) -> None:
    source = put(tmp_path / "in", "a.jpg", "b.heic", ".c.JPG.icloud", "d.dcm", "letter.txt")
    selection = Selection(strict=True)
    intake = submit(submission(source, selection=selection), database=sqlite_database, app=app, bundle=bundle)
    assert paths(sqlite_database, intake) == [".c.JPG.icloud", "a.jpg", "b.heic", "d.dcm"]


def test_a_path_that_is_too_long_fails_alone_by_its_name(
    database: Engine, app: Celery, bundle: Bundle, tmp_path: Path
) -> None:
    source = put(tmp_path / "in", "a.jpg", "/".join(["d" * 200] * 4) + "/a.jpg")
    intake = submit(submission(source), database=database, app=app, bundle=bundle)
    long, short = read(database, lambda c: list(c.execute(select(Image).order_by(Image.path.desc()))))
    assert (intake.images, short.path, short.failure_code) == (2, "a.jpg", None)
    assert (long.status, long.failure_code) == (ImageStatus.WAITING, FailureCode.UNREADABLE)
    assert long.path.startswith("d" * 150 + "…")
    assert "809 characters and 809 bytes, where 800 and 2,400 are allowed" in str(long.reason)
    waiting = {image.path: image.reason for image in read(database, lambda c: waiting_images(c, long.chunk_id))}
    assert waiting == {"a.jpg": None, long.path: long.reason}


def test_a_dry_run_lists_every_problem_with_its_line_and_records_nothing(
    sqlite_database: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "cases.csv").write_text("path,age,note\na.jpg,old,x\n,4,x\ngone.jpg,5,x\nb.jpg,6,x,y\n")
    monkeypatch.setenv("DERMQ_DATABASE_URL", str(sqlite_database.url))
    result = CliRunner().invoke(main, ["submit", str(tmp_path / "cases.csv"), "--dry-run"])
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "not found: gone.jpg",
        "line 2: age is not a number of years from 0 to 130",
        "line 3: a row without a path",
        "line 5: a row with more cells than columns",
    ]
    assert "2 images would be submitted, 1 of them not found." in result.stderr
    for wrong in (["--policy", "nope"], ["--pseudonymise"]):
        refused = CliRunner().invoke(main, ["submit", str(tmp_path / "cases.csv"), "--dry-run", *wrong])
        assert refused.exit_code == 2, wrong
    (tmp_path / "out.csv").write_text("path\n../../x\n/etc/hostname\na.jpg\n")
    result = CliRunner().invoke(main, ["submit", str(tmp_path / "out.csv"), "--dry-run"])
    assert (result.exit_code, result.stdout.count("outside the folder: ")) == (1, 2)
    assert rows_in(sqlite_database, Job, Chunk, Image) == [0, 0, 0]


def test_pseudonyms_need_a_key_and_replace_every_reference(
    sqlite_database: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "a.jpg")
    (tmp_path / "cases.csv").write_text("path,patient_ref\na.jpg,Miller\n")
    monkeypatch.setenv("DERMQ_DATABASE_URL", str(sqlite_database.url))
    monkeypatch.setenv("DERMQ_BROKER_URL", "redis://127.0.0.1:1/0")
    arguments = ["submit", str(tmp_path / "cases.csv"), "--pseudonymise"]
    refused = CliRunner().invoke(main, arguments)
    assert (refused.exit_code, "DERMQ_PSEUDONYM_KEY" in refused.stderr) == (2, True)
    monkeypatch.setenv("DERMQ_PSEUDONYM_KEY", "short")
    load_settings.cache_clear()
    assert "can be guessed" in CliRunner().invoke(main, arguments).stderr
    monkeypatch.setenv("DERMQ_PSEUDONYM_KEY", "a key of the hospital")
    load_settings.cache_clear()
    assert CliRunner().invoke(main, arguments).exit_code == 0
    load_settings.cache_clear()
    reference = read(sqlite_database, lambda c: c.scalar(select(Image.patient_ref)))
    assert len(str(reference)) == 32
