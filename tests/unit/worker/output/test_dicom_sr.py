"""DICOM reports: valid by dciodvfy, of TID 1500, unverified and preliminary, about the right image, once."""

import shutil
import subprocess
import warnings
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian

from db.status import ImageStatus, TriageFlag
from db.worklist import OutcomeRow
from tests.dicom_files import dicom
from tests.job_view import JOB
from tests.picture_files import PICTURE
from tests.unit.worker.output.test_csv import NOT_SCORED, ROW
from worker.errors import ImageFaultError
from worker.images.dicom_header import read_evidence
from worker.images.read import FileContent, sha256_of
from worker.output.dicom_sr import structured_report
from worker.output.send_sr import Sent, make_reports, write_reports

FILE = dicom(PICTURE, syntax=ExplicitVRLittleEndian)
EVIDENCE = read_evidence(FILE)
IDENTIFIERS = {
    "study_uid": str(EVIDENCE.StudyInstanceUID),
    "series_uid": str(EVIDENCE.SeriesInstanceUID),
    "instance_uid": str(EVIDENCE.SOPInstanceUID),
}
SCORED = replace(
    ROW, completed_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), image_sha256=sha256_of(FILE), **IDENTIFIERS
)
UNSCORED = replace(NOT_SCORED, image_id=9, status=ImageStatus.UNGRADABLE, image_sha256=None, **IDENTIFIERS)


def report(row: OutcomeRow = SCORED, frame: int | None = None) -> Dataset:
    return structured_report(row, EVIDENCE, job=JOB, frame=frame)


def items(dataset: Dataset) -> list[Dataset]:
    """Every item of the content tree."""
    found = [dataset]
    for item in dataset.get("ContentSequence", []):
        found += items(item)
    return found


def said(dataset: Dataset, name: str) -> list[Dataset]:
    return [
        item
        for item in items(dataset)
        if "ConceptNameCodeSequence" in item and item.ConceptNameCodeSequence[0].CodeMeaning == name
    ]


def validated(path: Path) -> str:
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy is not installed (Debian: dicom3tools)")
    done = subprocess.run([program, "-new", str(path)], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@pytest.mark.parametrize("row", [SCORED, UNSCORED, replace(SCORED, flag=TriageFlag.LOWER_PRIORITY)])
def test_it_is_valid_by_another_program(tmp_path: Path, row: OutcomeRow) -> None:
    report(row).save_as(tmp_path / "report.dcm", enforce_file_format=True)
    text = validated(tmp_path / "report.dcm")
    assert "Comprehensive" in text
    assert [line for line in text.splitlines() if line.startswith("Error")] == []


def test_it_is_in_the_study_of_the_image_and_refers_to_it(tmp_path: Path) -> None:
    report(frame=3).save_as(tmp_path / "report.dcm", enforce_file_format=True)
    found = dcmread(tmp_path / "report.dcm")
    assert (found.StudyInstanceUID, found.PatientID) == (EVIDENCE.StudyInstanceUID, "P-7")
    assert found.SeriesInstanceUID != EVIDENCE.SeriesInstanceUID
    image = next(item for item in items(found) if item.get("ValueType") == "IMAGE").ReferencedSOPSequence[0]
    assert image.ReferencedSOPInstanceUID == EVIDENCE.SOPInstanceUID
    assert image.ReferencedFrameNumber == 3
    evidence = found.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert evidence.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == EVIDENCE.SOPInstanceUID


def test_it_says_who_found_what_and_that_nobody_has_reviewed_it() -> None:
    found = report()
    assert (found.CompletionFlag, found.VerificationFlag, found.PreliminaryFlag) == (
        "PARTIAL", "UNVERIFIED", "PRELIMINARY",
    )  # fmt: skip
    probability = said(found, "Calibrated probability of melanoma against nevus")[0]
    assert float(probability.MeasuredValueSequence[0].NumericValue) == pytest.approx(SCORED.probability, abs=5e-5)
    assert said(found, "Triage flag")[0].ConceptCodeSequence[0].CodeMeaning == "High risk: look first"
    assert said(found, "Review status")[0].ConceptCodeSequence[0].CodeMeaning == "Not reviewed by a person"
    assert said(found, "Algorithm Name")[0].TextValue == SCORED.bundle_name
    assert SCORED.bundle_sha256[:16] in said(found, "Algorithm Version")[0].TextValue
    assert found.ContentDate == "20260102"


def test_without_a_score_there_is_no_probability() -> None:
    found = report(UNSCORED)
    assert said(found, "Calibrated probability of melanoma against nevus") == []
    assert said(found, "Triage flag")[0].ConceptCodeSequence[0].CodeMeaning == "Not scored: a human must look"


def test_the_same_result_has_the_same_identifiers_and_another_has_others() -> None:
    one, again = report(), report()
    assert (one.SOPInstanceUID, one.SeriesInstanceUID) == (again.SOPInstanceUID, again.SeriesInstanceUID)
    assert one.SOPInstanceUID.startswith("2.25.")
    assert len(one.SOPInstanceUID) <= 64
    later = report(replace(SCORED, completed_at=datetime(2026, 1, 3, tzinfo=UTC)))
    assert later.SOPInstanceUID != one.SOPInstanceUID


def test_images_without_a_report_are_counted_by_reason(tmp_path: Path) -> None:
    def reader(path: str, **_: object) -> FileContent:
        if path == "gone.dcm":
            raise ImageFaultError("missing", "gone")  # type: ignore[arg-type]
        data = b"no DICOM" if path == "odd.dcm" else FILE
        return FileContent(data=data, sha256=sha256_of(data))

    rows = [
        replace(SCORED, path="a.dcm"),
        replace(SCORED, image_id=2, path="gone.dcm"),
        replace(SCORED, image_id=3, path="odd.dcm"),
        replace(SCORED, image_id=4, path="other.dcm", image_sha256="0" * 64),
        replace(SCORED, image_id=5, path="moved.dcm", instance_uid="1.2"),
        replace(ROW, image_id=6, path="b.jpg"),
        replace(NOT_SCORED, image_id=7, status=ImageStatus.WAITING, **IDENTIFIERS),
        replace(UNSCORED, path="c.dcm"),
    ]
    sent = Sent()
    write_reports(make_reports(rows, reader, job=JOB, max_bytes=10**7, sent=sent), tmp_path, sent)
    assert (sent.written, len(list(tmp_path.iterdir()))) == (2, 2)
    assert sent.without == {
        "cannot be read now": 2,
        "are not those that were scored": 2,
        "did not come as DICOM": 1,
        "have no outcome": 1,
    }


def test_a_file_with_hardly_any_attributes_is_enough(tmp_path: Path) -> None:
    bare = dcmread(BytesIO(FILE))
    for name in ("PatientName", "PatientID", "PatientSex", "PatientAge"):
        delattr(bare, name)
    bare.save_as(tmp_path / "bare.dcm")
    evidence = read_evidence((tmp_path / "bare.dcm").read_bytes())
    structured_report(SCORED, evidence, job=JOB, frame=None).save_as(tmp_path / "report.dcm", enforce_file_format=True)
    assert [line for line in validated(tmp_path / "report.dcm").splitlines() if line.startswith("Error")] == []
    with pytest.raises(ValueError, match="identifiers"):
        read_evidence(b"\0" * 500)


@pytest.mark.parametrize(
    "odd",
    [
        {"PatientSex": "female"},
        {"StudyDate": "2020-01-01"},
        {"PatientBirthDate": "01.02.1970"},
        {"StudyTime": "25:99"},
        {"SpecificCharacterSet": ["", "ISO 2022 IR 87"]},
        {"SpecificCharacterSet": "ISO_IR_100"},
        {"StudyInstanceUID": ["1.2", "1.3"]},
    ],
)
def test_odd_attributes_cost_one_report_at_most(tmp_path: Path, odd: dict[str, object]) -> None:
    changed = dcmread(BytesIO(FILE))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, value in odd.items():
            setattr(changed, name, value)
        changed.save_as(tmp_path / "odd.dcm")
    data = {"odd.dcm": (tmp_path / "odd.dcm").read_bytes(), "usual.dcm": FILE}

    def reader(path: str, **_: object) -> FileContent:
        return FileContent(data=data[path], sha256=sha256_of(data[path]))

    rows = [
        replace(SCORED, path=path, image_id=number, image_sha256=sha256_of(data[path]))
        for number, path in enumerate(data)
    ]
    (tmp_path / "reports").mkdir()
    sent = Sent()
    write_reports(make_reports(rows, reader, job=JOB, max_bytes=10**7, sent=sent), tmp_path / "reports", sent)
    assert sent.written + sum(sent.without.values()) == 2
    assert sent.written >= 1


def test_the_time_is_that_of_the_images_own_zone() -> None:
    evidence = read_evidence(dicom(PICTURE, TimezoneOffsetFromUTC="+0900"))
    found = structured_report(SCORED, evidence, job=JOB, frame=None)
    assert (found.ContentDate, found.ContentTime[:4]) == ("20260102", "1204")
