"""`dermq export` to what hospitals have: reports in a real PACS, each once and in its study; FHIR; a store."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from pydicom import Dataset, dcmread
from sqlalchemy import Engine, update

from db.audit import entries_of
from db.models import Image
from db.session import read
from tests.dicom_files import dicom
from tests.integration.databases import MadeJob
from tests.integration.orthanc import Store
from tests.integration.stub_scoring import FakeEngine, job_of, score
from tests.picture_files import PICTURE
from tests.s3_server import s3_server
from worker.cli import main
from worker.images.read_dicomweb import DICOMWEB, dicomweb_client
from worker.images.read_remote import open_store
from worker.inference.bundle import Bundle

Command = Callable[..., Result]
STUDIES = ("2.25.1001", "2.25.1002")

pytestmark = pytest.mark.usefixtures("pacs_account")


@pytest.fixture
def dermq(sqlite_database: Engine, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setenv("DERMQ_DATABASE_URL", str(sqlite_database.url))
    return lambda *arguments: CliRunner().invoke(main, list(map(str, arguments)))


@pytest.fixture
def job(sqlite_database: Engine, bundle: Bundle, tmp_path: Path) -> MadeJob:
    """Three images of two studies, scored, and a file that is no DICOM."""
    archive = tmp_path / "archive"
    archive.mkdir()
    for number in range(3):
        study = STUDIES[number // 2]
        attributes = {"StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.1", "PatientID": f"P-{study}"}
        (archive / f"{number}.dcm").write_bytes(
            dicom(PICTURE + number, SOPInstanceUID=f"{study}.1.{number}", **attributes)
        )
    (archive / "letter.jpg").write_bytes(b"no picture")
    made = job_of(sqlite_database, archive)
    assert score(sqlite_database, made, bundle, FakeEngine()) == 4
    return made


def test_reports_come_into_the_study_of_their_image_once(
    dermq: Command, job: MadeJob, pacs: tuple[str, Store], sqlite_database: Engine
) -> None:
    address, _ = pacs
    sent = dermq("export", job.job_id, "--format", "dicom-sr", "--stow", address)
    assert sent.exit_code == 0, sent.output
    assert "3 reports sent." in sent.stderr
    assert "1 images did not come as DICOM" in sent.stderr
    # Another client finds them where a doctor looks.
    client = dicomweb_client(DICOMWEB + address)
    for study, count in zip(STUDIES, (2, 1), strict=True):
        found = client.search_for_instances(study, search_filters={"Modality": "SR"})
        assert len(found) == count
        for each in found:
            report = client.retrieve_instance(study, each["0020000E"]["Value"][0], each["00080018"]["Value"][0])
            assert report.PatientID == f"P-{study}"
            evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
            assert evidence.ReferencedSOPSequence[0].ReferencedSOPInstanceUID.startswith(f"{study}.1.")
            assert report.VerificationFlag == "UNVERIFIED"
    again = dermq("export", job.job_id, "--format", "dicom-sr", "--stow", address)
    assert "0 reports sent, 3 were there already." in again.stderr
    assert again.exit_code == 0
    assert len(client.search_for_instances(STUDIES[0], search_filters={"Modality": "SR"})) == 2
    details = [
        json.loads(str(entry.detail))
        for entry in read(sqlite_database, lambda c: list(entries_of(c, job_id=job.job_id)))
    ]
    assert {"images": 4, "format": "dicom-sr", "pacs": address} in details


def test_the_report_of_an_image_that_is_scored_again_names_the_earlier_one(
    dermq: Command, job: MadeJob, pacs: tuple[str, Store], sqlite_database: Engine
) -> None:
    address, _ = pacs
    assert dermq("export", job.job_id, "--format", "dicom-sr", "--stow", address).exit_code == 0
    client = dicomweb_client(DICOMWEB + address)

    def reports() -> dict[str, Dataset]:
        found = client.search_for_instances(STUDIES[0], search_filters={"Modality": "SR"})
        names = [(each["0020000E"]["Value"][0], each["00080018"]["Value"][0]) for each in found]
        return {instance: client.retrieve_instance(STUDIES[0], series, instance) for series, instance in names}

    before = reports()
    with sqlite_database.begin() as connection:
        connection.execute(
            update(Image).where(Image.path == "0.dcm").values(completed_at=datetime(2031, 1, 2, tzinfo=UTC))
        )
    sent = dermq("export", job.job_id, "--format", "dicom-sr", "--stow", address)
    assert "1 reports sent, 2 were there already." in sent.stderr
    after = reports()
    (new,) = after.keys() - before.keys()
    study = after[new].PredecessorDocumentsSequence[0]
    (earlier,) = study.ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert study.StudyInstanceUID == STUDIES[0]
    assert before[earlier.ReferencedSOPInstanceUID].InstanceNumber == after[new].InstanceNumber
    assert all("PredecessorDocumentsSequence" not in each for each in before.values())


def test_a_pacs_that_is_gone_or_refuses_says_so(
    dermq: Command, job: MadeJob, pacs: tuple[str, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.images.read_dicomweb._ATTEMPTS", 1)
    for wrong in ("http://127.0.0.1:9/dicom-web", "no address"):
        refused = dermq("export", job.job_id, "--format", "dicom-sr", "--stow", wrong)
        assert refused.exit_code == 2, refused.output
        assert "PACS" in refused.stderr
        assert "Traceback" not in refused.output
    monkeypatch.setenv("DERMQ_DICOMWEB_PASSWORD", "wrong")
    from worker.settings import load_settings

    load_settings.cache_clear()
    dicomweb_client.cache_clear()
    refused = dermq("export", job.job_id, "--format", "dicom-sr", "--stow", pacs[0])
    assert "the PACS refuses access" in refused.stderr


def test_reports_in_a_folder_appear_together(dermq: Command, job: MadeJob, tmp_path: Path) -> None:
    target = tmp_path / "reports"
    done = dermq("export", job.job_id, "--format", "dicom-sr", "-o", target)
    assert done.exit_code == 0, done.output
    assert target.stat().st_mode & 0o777 == 0o700
    reports = [dcmread(path) for path in target.iterdir()]
    assert {str(each.StudyInstanceUID) for each in reports} == set(STUDIES)
    assert dermq("export", job.job_id, "--format", "dicom-sr", "-o", target).exit_code == 2
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--format", "dicom-sr"), "need a folder"),
        (("--format", "dicom-sr", "--ranked", "-o", "x"), "have no order"),
        (("--stow", "https://pacs"), "Add --format dicom-sr"),
        (("--with-references",), "is for --format fhir"),
        (("--format", "parquet"), "cannot be a stream"),
        (("--format", "fhir", "--worklist"), "is a CSV"),
        (("-o", "/"), "is a folder"),
        (("--patient-system", "urn:oid:2.999.1"), "Add --with-references"),
        (("--format", "fhir", "--with-references", "--patient-system", "our numbers"), "is no system of identifiers"),
        (("--format", "fhir", "--with-references", "--patient-system", "urn:oid:2.04"), "is no system of identifiers"),
        (("-o", "ftp://host/x.csv"), "ftp:// is not"),
    ],
)
def test_what_does_not_fit_is_refused(dermq: Command, job: MadeJob, arguments: tuple[str, ...], said: str) -> None:
    refused = dermq("export", job.job_id, *arguments)
    assert refused.exit_code == 2
    assert said in refused.stderr


def test_a_job_without_dicom_can_have_no_reports(
    dermq: Command, sqlite_database: Engine, bundle: Bundle, tmp_path: Path
) -> None:
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "a.jpg").write_bytes(b"no picture")
    made = job_of(sqlite_database, tmp_path / "archive")
    score(sqlite_database, made, bundle, FakeEngine())
    refused = dermq("export", made.job_id, "--format", "dicom-sr", "-o", tmp_path / "reports")
    assert refused.exit_code == 2
    assert "1 did not come as DICOM. Reports are made of images that came as DICOM" in refused.stderr
    assert not (tmp_path / "reports").exists()


def test_fhir_has_a_line_for_each_image_and_patients_when_asked_for(
    dermq: Command, job: MadeJob, tmp_path: Path, sqlite_database: Engine
) -> None:
    plain = dermq("export", job.job_id, "--format", "fhir", "-o", tmp_path / "plain.ndjson")
    assert plain.exit_code == 0, plain.output
    named = dermq("export", job.job_id, "--format", "fhir", "--with-references", "-o", tmp_path / "named.ndjson")
    assert named.exit_code == 0, named.output
    lines = [json.loads(line) for line in (tmp_path / "named.ndjson").read_text().splitlines()]
    assert len(lines) == 4
    assert all(line["type"] == "transaction" for line in lines)
    assert "P-2.25.1001" in (tmp_path / "named.ndjson").read_text()
    assert "P-2.25" not in (tmp_path / "plain.ndjson").read_text()
    known = ("--patient-system", "https://hospital.example/mrn", "-o", tmp_path / "known.ndjson")
    assert dermq("export", job.job_id, "--format", "fhir", "--with-references", *known).exit_code == 0
    for line in (tmp_path / "known.ndjson").read_text().splitlines():
        subjects = [each["resource"].get("subject") for each in json.loads(line)["entry"]]
        found = {each["identifier"]["system"] for each in subjects if each}
        assert found <= {"https://hospital.example/mrn"}
    details = [
        json.loads(str(entry.detail))
        for entry in read(sqlite_database, lambda c: list(entries_of(c, job_id=job.job_id)))
    ]
    assert {"images": 4, "format": "fhir", "references": True} in details


@pytest.mark.parametrize("kind", ["csv", "parquet", "fhir", "dicom-sr"])
def test_an_export_goes_to_a_store_as_a_whole(
    dermq: Command, job: MadeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    with s3_server() as (files, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        open_store.cache_clear()
        done = dermq("export", job.job_id, "--format", kind, "-o", "s3://archive/out/result")
        assert done.exit_code == 0, done.output
        if kind == "dicom-sr":
            assert len(files.ls("archive/out/result")) == 3
            again = dermq("export", job.job_id, "--format", kind, "-o", "s3://archive/out/result")
            assert again.exit_code == 2
            assert "s3://archive/out/result is there already. Name a new folder" in again.stderr
        else:
            local = tmp_path / "local"
            assert dermq("export", job.job_id, "--format", kind, "-o", local).exit_code == 0
            assert files.cat("archive/out/result") == local.read_bytes()
        refused = dermq("export", job.job_id, "--format", kind, "-o", "s3://no-such-bucket/x")
        assert refused.exit_code == 2
        assert "could not be written" in refused.stderr


def test_a_name_or_password_in_an_address_is_refused_before_it_is_logged(dermq: Command, job: MadeJob) -> None:
    refused = dermq("export", job.job_id, "--format", "dicom-sr", "--stow", "http://me:secret@127.0.0.1:9/dicom-web")
    assert refused.exit_code == 2
    assert "Set DERMQ_DICOMWEB_USER" in refused.stderr
    assert "secret" not in dermq("audit", "list").output


def test_references_are_for_this_user_alone(dermq: Command, job: MadeJob, tmp_path: Path) -> None:
    target = tmp_path / "named.ndjson"
    assert dermq("export", job.job_id, "--format", "fhir", "--with-references", "-o", target).exit_code == 0
    assert target.stat().st_mode & 0o777 == 0o600


def test_an_answer_that_names_no_report_is_no_success(
    dermq: Command, job: MadeJob, pacs: tuple[str, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = dicomweb_client(DICOMWEB + pacs[0])
    monkeypatch.setattr(client, "search_for_instances", lambda *_, **__: [])
    monkeypatch.setattr(client, "store_instances", lambda reports: {})
    refused = dermq("export", job.job_id, "--format", "dicom-sr", "--stow", pacs[0])
    assert refused.exit_code == 2
    assert "it may be no PACS" in refused.stderr
