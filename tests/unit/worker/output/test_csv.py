"""The CSV: every image a line, every path as it was, nothing that a spreadsheet runs."""

import csv
import io
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from db.status import FailureCode, ImageStatus, TriageFlag, UngradableReason
from db.worklist import OutcomeRow
from worker.output.csv import write_csv
from worker.output.rows import COLUMNS, Written

ROW = OutcomeRow(
    image_id=1,
    path="2019/a.jpg",
    status=ImageStatus.SCORED,
    flag=TriageFlag.HIGH_RISK,
    probability=0.1 + 0.2,
    raw_probability=0.9,
    malignant_probability=0.625,
    class_probabilities={"mel": 0.5, "bcc": 0.125, "nv": 0.375},
    threshold=0.25,
    policy="youden",
    bundle_name="synthetic",
    bundle_version="1",
    bundle_sha256="b" * 64,
    engine="fake 1",
    reused=False,
    image_sha256="a" * 64,
    lesion_id="L1",
    failure_code=None,
    ungradable_reason=None,
    quality_notes=None,
    site=None,
    study_uid=None,
    series_uid=None,
    instance_uid=None,
    reason=None,
    completed_at=datetime(2026, 1, 1, tzinfo=UTC),
)
NOT_SCORED = replace(
    ROW,
    flag=None,
    probability=None,
    raw_probability=None,
    malignant_probability=None,
    class_probabilities=None,
    engine=None,
    reused=None,
    image_sha256=None,
)


def exported(*rows: OutcomeRow) -> list[dict[str, str]]:
    """Write and read back, as a file would be."""
    file = io.StringIO(newline="")
    statuses = Counter(row.status for row in rows)
    not_scored = statuses[ImageStatus.UNGRADABLE] + statuses[ImageStatus.FAILED]
    written = Written(images=len(rows), waiting=statuses[ImageStatus.WAITING], not_scored=not_scored)
    assert write_csv(rows, file) == written
    file.seek(0)
    read = list(csv.reader(file))
    assert read[0] == list(COLUMNS)
    return [dict(zip(COLUMNS, cells, strict=True)) for cells in read[1:]]


def test_a_scored_image_line_by_line() -> None:
    (line,) = exported(ROW)
    assert line == {
        "path": "2019/a.jpg",
        "status": "scored",
        "flag": "high_risk",
        # Every digit: two lines that differ in the last one must not tie.
        "probability": "0.30000000000000004",
        "raw_probability": "0.9",
        "malignant_probability": "0.625",
        "class_probabilities": "mel=0.5000 bcc=0.1250 nv=0.3750",
        "threshold": "0.25",
        "policy": "youden",
        "bundle": "synthetic 1",
        "bundle_sha256": "b" * 64,
        "engine": "fake 1",
        "reused": "no",
        "image_sha256": "a" * 64,
        "lesion_id": "L1",
        "reason_code": "",
        "reason": "",
        "quality_notes": "",
    }


def test_a_failed_image_goes_to_a_human_with_its_reason() -> None:
    failed = replace(
        NOT_SCORED, status=ImageStatus.FAILED, failure_code=FailureCode.MISSING, reason="there is no such file any more"
    )
    (line,) = exported(failed)
    assert (line["status"], line["flag"], line["probability"]) == ("failed", "ungradable", "")
    assert (line["reason_code"], line["reason"]) == ("missing", "there is no such file any more")


def test_an_ungradable_image_goes_to_a_human_with_its_reason() -> None:
    ungradable = replace(
        NOT_SCORED, status=ImageStatus.UNGRADABLE, ungradable_reason=UngradableReason.BLURRED, reason="blurred: …"
    )
    (line,) = exported(ungradable)
    assert (line["status"], line["flag"], line["probability"]) == ("ungradable", "ungradable", "")
    assert (line["reason_code"], line["reason"]) == ("blurred", "blurred: …")


def test_an_image_that_waits_has_no_flag_yet() -> None:
    line, _ = exported(replace(NOT_SCORED, status=ImageStatus.WAITING), ROW)
    assert (line["status"], line["flag"], line["reason_code"]) == ("waiting", "", "")


def test_what_a_cancelled_job_never_came_to_goes_to_a_human() -> None:
    """Nothing else will ever become of it."""
    file = io.StringIO(newline="")
    written = write_csv([replace(NOT_SCORED, status=ImageStatus.WAITING), ROW], file, cancelled=True)
    assert written == Written(images=2, waiting=1, not_scored=1)
    file.seek(0)
    given_up, scored = csv.DictReader(file)
    assert (given_up["status"], given_up["flag"], given_up["reason_code"]) == ("waiting", "ungradable", "cancelled")
    assert given_up["reason"] == "the job was cancelled before the image was scored"
    assert (scored["flag"], scored["reason_code"]) == ("high_risk", "")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", " =", '"=', "＝"])  # noqa: RUF001
def test_what_a_spreadsheet_would_run_is_quoted(start: str) -> None:
    (line,) = exported(replace(ROW, path=f"{start}HYPERLINK(1)/a.jpg", lesion_id=f"{start}1+1"))
    assert line["path"] == f"'{start}HYPERLINK(1)/a.jpg"
    assert line["lesion_id"] == f"'{start}1+1"


@pytest.mark.parametrize("separator", [",", ";", "\t", "|", "\n"])
def test_a_formula_behind_what_another_program_takes_for_a_separator_is_quoted(separator: str) -> None:
    (line,) = exported(replace(ROW, path=f"a{separator}=1+1.jpg", lesion_id=f"L{separator} @x{separator}b"))
    assert line["path"] == f"a{separator}'=1+1.jpg"
    assert line["lesion_id"] == f"L{separator}' @x{separator}b"


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@settings(deadline=None)
@given(path=st.text("a=+-@ \"';,\t\r\n|", min_size=1))
def test_no_cell_is_a_formula_whatever_separator_a_program_splits_at(separator: str, path: str) -> None:
    file = io.StringIO(newline="")
    write_csv([replace(ROW, path=path, lesion_id=path, reason=path, policy=path)], file)
    for line in file.getvalue().splitlines():
        for cell in line.split(separator):
            assert not cell.lstrip(' "').startswith(("=", "+", "-", "@")), (path, cell)


def test_every_text_of_a_line_is_made_safe_and_numbers_are_left() -> None:
    texts = ("path", "policy", "bundle_name", "engine", "lesion_id", "reason")
    (line,) = exported(replace(ROW, **dict.fromkeys(texts, "=x"), raw_probability=-1.5, class_probabilities={"=": 1.0}))
    assert [name for name, cell in line.items() if cell.startswith(("=", "+", "-", "@"))] == ["raw_probability"]


@pytest.mark.parametrize(
    "path",
    [
        "a,b;c.jpg",
        'the "good" one.jpg',
        "two\nlines.jpg",
        "Männer/ß 🙂 皮膚.jpg",
        "a'b.jpg",
        " spaces .jpg",
        r"a\xe9.jpg",
    ],
)
def test_paths_come_back_as_they_were(path: str) -> None:
    (line,) = exported(replace(ROW, path=path))
    assert line["path"] == path


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), min_size=1))
def test_any_path_comes_back_with_at_most_quotes_put_into_it(path: str) -> None:
    before, line, after = exported(ROW, replace(ROW, path=path), ROW)
    assert line["path"].replace("'", "") == path.replace("'", "")
    if not set(path) & set("=+-@\t＝＋－＠"):  # noqa: RUF001
        assert line["path"] == path
    assert before == after


@pytest.mark.parametrize("path", ["old\rmac.jpg", "\r=1+1.jpg", "windows\r\n.jpg"])
def test_a_carriage_return_is_written_out_and_does_not_break_the_line(path: str) -> None:
    """Python before 3.13 would leave it bare, and a reader would see two lines."""
    before, line, after = exported(ROW, replace(ROW, path=path), ROW)
    assert line["path"] == path.replace("\r", "\\r")
    assert before == after


def test_a_job_without_images_is_a_header() -> None:
    assert exported() == []


def test_a_terminal_gets_no_control_characters_and_a_file_keeps_them() -> None:
    row = replace(ROW, path="a\n\x1b[31mRED\x1b]0;T\x07.jpg")
    for terminal in (True, False):
        file = io.StringIO(newline="")
        write_csv([row], file, terminal=terminal)
        assert ("\x1b" in file.getvalue()) is not terminal
        assert len(list(csv.reader(io.StringIO(file.getvalue())))) == 2
