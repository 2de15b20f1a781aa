"""FHIR: valid by a library's models of the standard, preliminary, without names, and the same when written again."""

import io
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from fhir.resources.R4B import get_fhir_model_class

from db.status import ImageStatus, TriageFlag
from db.worklist import OutcomeRow
from tests.job_view import JOB
from tests.unit.worker.output.test_csv import NOT_SCORED, ROW
from worker.output.fhir import transaction, write_fhir

SCORED = replace(ROW, completed_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), site="back")
DICOM = replace(SCORED, study_uid="1.2.3", series_uid="1.2.3.4", instance_uid="1.2.3.4.5")


def resources(row: OutcomeRow, patient: str | None = None) -> dict[str, list[dict[str, Any]]]:
    """Those of one image by type, each valid by itself and in its Bundle."""
    bundle = transaction(row, job=JOB, patient=patient)
    get_fhir_model_class("Bundle").model_validate_json(json.dumps(bundle))
    found: dict[str, list[dict[str, Any]]] = {}
    for entry in bundle["entry"]:
        resource = entry["resource"]
        get_fhir_model_class(resource["resourceType"]).model_validate_json(json.dumps(resource))
        assert entry["request"]["url"] == f"{resource['resourceType']}/{resource['id']}"
        found.setdefault(resource["resourceType"], []).append(resource)
    names = {f"{kind}/{each['id']}" for kind, all_of in found.items() for each in all_of}
    assert len(names) == len(bundle["entry"])
    assert references(bundle) <= names
    return found


def references(part: Any) -> set[str]:
    if isinstance(part, dict):
        own = {part["reference"]} if isinstance(part.get("reference"), str) else set()
        return own.union(*map(references, part.values()))
    return set().union(*map(references, part)) if isinstance(part, list) else set()


def test_a_scored_image_is_a_preliminary_report_with_its_observations_and_device() -> None:
    found = resources(SCORED)
    report, device = found["DiagnosticReport"][0], found["Device"][0]
    flag, probability = found["Observation"]
    assert {each["status"] for each in (report, flag, probability)} == {"preliminary"}
    assert "Not reviewed by a person" in report["conclusion"]
    assert flag["valueCodeableConcept"]["coding"][0]["code"] == SCORED.flag
    assert probability["valueQuantity"]["value"] == pytest.approx(SCORED.probability or 0, abs=5e-5)
    assert probability["referenceRange"][0]["high"]["value"] == SCORED.threshold
    assert device["identifier"][0]["value"] == SCORED.bundle_sha256
    assert flag["effectiveDateTime"] == "2026-01-02T03:04:05+00:00"
    assert found["Media"][0]["content"]["title"] == SCORED.path
    assert "BodyStructure" not in found


def test_patients_are_named_only_when_asked_for_and_the_lesion_with_them() -> None:
    assert "subject" not in json.dumps(resources(SCORED))
    found = resources(SCORED, "P-7")
    assert found["DiagnosticReport"][0]["subject"]["identifier"]["value"] == "P-7"
    (lesion,) = found["BodyStructure"]
    assert lesion["location"]["text"] == "back"
    assert found["Observation"][0]["focus"] == [{"reference": f"BodyStructure/{lesion['id']}"}]


def test_an_image_that_came_as_dicom_names_its_study_and_instance() -> None:
    found = resources(DICOM)
    (study,) = found["DiagnosticReport"][0]["imagingStudy"]
    assert study["identifier"] == {"system": "urn:dicom:uid", "value": "urn:oid:1.2.3"}
    assert {"system": "urn:dicom:uid", "value": "urn:oid:1.2.3.4.5"} in found["Media"][0]["identifier"]


def test_the_first_job_of_another_database_has_other_ids() -> None:
    other = replace(JOB, submitted_at=datetime(2026, 1, 2, tzinfo=UTC))
    one, another = (
        {entry["resource"]["id"] for entry in transaction(SCORED, job=job, patient="P-7")["entry"]}
        for job in (JOB, other)
    )
    # Only the bundle is the same.
    assert len(one & another) == 1


def test_patients_whose_references_look_alike_stay_apart() -> None:
    alike = ("P 1", "P\u00a01", "P\u200d1", "P\x011", "P\x021", "P\udc811")
    shown = {resources(SCORED, text)["DiagnosticReport"][0]["subject"]["identifier"]["value"] for text in alike}
    assert len(shown) == len(alike)


@pytest.mark.parametrize("status", [ImageStatus.UNGRADABLE, ImageStatus.FAILED])
def test_without_a_score_there_is_a_reason_and_no_number(status: ImageStatus) -> None:
    flag, probability = resources(replace(NOT_SCORED, status=status, reason="blurred\x00: …\n"))["Observation"]
    assert flag["valueCodeableConcept"]["coding"][0]["code"] == TriageFlag.UNGRADABLE
    assert "valueQuantity" not in probability
    assert probability["dataAbsentReason"]["text"].startswith("blurred")


@pytest.mark.parametrize("text", [" ", "a\tb", "\udc80", "<script>", "x" * 5000])
def test_hostile_texts_are_held(text: str) -> None:
    row = replace(SCORED, path=text, lesion_id=text, site=text, policy=text)
    assert json.dumps(transaction(row, job=JOB, patient=text), ensure_ascii=False).encode()
    resources(row, text)


def test_lines_are_the_same_when_written_again_and_waiting_images_are_counted() -> None:
    rows = [SCORED, replace(NOT_SCORED, image_id=8, status=ImageStatus.WAITING), DICOM]
    asked: list[list[int]] = []

    def references_of(ids: Any) -> dict[int, str]:
        asked.append(list(ids))
        return {SCORED.image_id: "P-7"}

    one, other = io.StringIO(), io.StringIO()
    written = write_fhir(rows, one, job=JOB, references_of=references_of)
    write_fhir(rows, other, job=JOB, references_of=references_of)
    assert one.getvalue() == other.getvalue()
    assert (written.images, written.waiting, one.getvalue().count("\n")) == (3, 1, 2)
    assert asked[0] == [SCORED.image_id, DICOM.image_id]
    assert "P-7" in one.getvalue()
    cancelled = io.StringIO()
    write_fhir(rows, cancelled, job=JOB, cancelled=True)
    assert cancelled.getvalue().count("\n") == 3
