"""Findings come back: each on its image, version by version, what is wrong named by its line, and all of it audited."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Engine, select, update

from db.audit import entries_of, verify
from db.deletion import delete_rows, mark_deleting
from db.feedback import NewFinding, record_findings, reviewed_images
from db.models import Feedback, Image, Job
from db.session import read, transact
from db.status import JobStatus
from tests.integration.databases import add_job
from worker.cli import main


def findings(database: Engine) -> list[tuple[int, int, str | None, str | None]]:
    query = select(Feedback.image_id, Feedback.version, Feedback.finding, Feedback.diagnosis).order_by(Feedback.id)
    return [tuple(row) for row in read(database, lambda c: list(c.execute(query)))]  # type: ignore[misc]


def run(database: Engine, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> Result:
    monkeypatch.setenv("DERMQ_DATABASE_URL", database.url.render_as_string(hide_password=False))
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_findings_become_versions_and_problems_are_named(
    sqlite_database: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = sqlite_database
    made = add_job(database, 4)
    first, _, third, fourth = made.image_ids
    transact(database, lambda c: c.execute(update(Image).where(Image.id.in_([third, fourth])).values(lesion_id="L1")))
    file = tmp_path / "findings.csv"
    file.write_text(
        "path,lesion_id,finding,diagnosis,comment,reviewed,date\n"
        "0/0.jpg,,excise,,Miller,yes,2026-11-30\n"
        "0/1.jpg,,,,,no,\n"
        ",L1,,melanoma,,,\n"
        "0/9.jpg,,excise,,,,\n"
        "0/1.jpg,,excise,,,,yesterday\n"
    )
    result = run(database, monkeypatch, "feedback", made.job_id, file)
    assert (result.exit_code, result.stdout) == (1, "3 findings recorded.\n")
    assert "the job has no such image or lesion: line 5" in result.stderr
    assert "the date is not of the form 2026-12-31: line 6" in result.stderr
    assert "Rows without a finding: 1." in result.stderr
    expected = [(first, 1, "excise", None), (third, 1, None, "melanoma"), (fourth, 1, None, "melanoma")]
    assert findings(database) == expected
    file.write_text("path,finding\n0/0.jpg,follow up\n")
    assert run(database, monkeypatch, "feedback", made.job_id, file).exit_code == 0
    assert "0 findings recorded, 1 were known" in run(database, monkeypatch, "feedback", made.job_id, file).stdout
    assert findings(database) == [*expected, (first, 2, "follow up", None)]
    entries = read(database, lambda c: entries_of(c, made.job_id))
    details = [json.loads(entry.detail) for entry in entries if entry.action == "reviewed"]
    assert [detail["versions"] for detail in details] == [3, 1, 0]
    assert "Miller" not in repr(entries)
    assert read(database, verify).faults == []
    few = run(database, monkeypatch, "audit-performance", made.job_id)
    assert (few.exit_code, "Too few melanomas" in few.stderr, "sensitivity:" in few.stdout) == (1, True, False)


def test_a_later_finding_is_a_new_version_and_all_go_with_their_job(database: Engine) -> None:
    made = add_job(database, 2)
    first, second = made.image_ids

    def record(*said: tuple[int, str]) -> int:
        found = [
            NewFinding(image_id=image, finding=None, diagnosis=text, comment=None, reviewer="Pathology")
            for image, text in said
        ]
        return transact(database, lambda c: record_findings(c, made.job_id, found))

    assert record((first, "nevus"), (second, "nevus")) == 2
    assert record((first, "melanoma"), (second, "nevus")) == 1
    reviewed = read(database, lambda c: list(reviewed_images(c, made.job_id)))
    assert [image.diagnosis for image in reviewed] == ["melanoma", "nevus"]
    transact(database, lambda c: c.execute(update(Job).values(status=JobStatus.CANCELLED)))
    transact(database, lambda c: mark_deleting(c, made.job_id, actor="test", request="1", why="test"))
    delete_rows(database, made.job_id)
    assert findings(database) == []


def test_a_file_without_findings_is_refused(
    sqlite_database: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = add_job(sqlite_database, 1)
    file = tmp_path / "findings.csv"
    file.write_text("path,age\n0/0.jpg,4\n")
    result = run(sqlite_database, monkeypatch, "feedback", made.job_id, file)
    assert (result.exit_code, "It needs path or lesion_id" in result.stderr) == (2, True)
