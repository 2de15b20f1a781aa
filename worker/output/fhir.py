"""The outcomes of a job as FHIR R4: one transaction for each image, a line each (NDJSON).

As the guides "DICOM SR to FHIR" of HL7 and "Integrated Reporting Applications" of IHE have it: a preliminary
DiagnosticReport with Observations of the probability and the flag, the Device that made them, and the picture as Media.
The study of a picture that came as DICOM is referred to by its identifier, for the hospital has it already. Resources
have ids that stay the same, and are put there by PUT: whoever sends a line twice changes nothing.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TextIO

from db.jobs import JobView
from db.status import ImageStatus
from db.worklist import OutcomeRow
from worker.output.in_words import FLAGS, NOT_REVIEWED, PROBABILITY, THRESHOLD, TRIAGE_FLAG, digits, flag_of, identity
from worker.output.rows import CountedRows, Written

#: System of the codes that no standard has, and of identifiers.
_SYSTEM = "urn:dermq"
#: Rows whose patient references are looked up together.
_TOGETHER = 1_000
#: Diagnostic imaging; the modality of dermoscopy; a number without a unit.
_CATEGORY = {"system": "http://terminology.hl7.org/CodeSystem/v2-0074", "code": "IMG"}
_MODALITY = {"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "DMS", "display": "Dermoscopy"}
_UNIT = {"unit": "1", "system": "http://unitsofmeasure.org", "code": "1"}

#: Half of a character, of a name that is not UTF-8.
_SURROGATE = re.compile("[\ud800-\udfff]")

Resource = dict[str, Any]


def write_fhir(
    rows: Iterable[OutcomeRow],
    file: TextIO,
    *,
    job: JobView,
    cancelled: bool = False,
    references_of: Callable[[Sequence[int]], dict[int, str]] | None = None,
    patient_system: str | None = None,
) -> Written:
    """Write the images that have an outcome, and those of a cancelled job; the others are counted.

    Args:
        rows: in the order to write.
        file: opened for text.
        job: of the rows.
        cancelled: whether the job was cancelled, so that a human must look at waiting images.
        references_of: gives patient references by image id. None leaves them out.
        patient_system: of these references, a URI. None is dermq's own, which no registry knows.
    """
    counted = CountedRows(rows, cancelled=cancelled)
    batch: list[OutcomeRow] = []

    def write() -> None:
        references = references_of([row.image_id for row in batch]) if references_of is not None else {}
        for row in batch:
            line = transaction(row, job=job, patient=references.get(row.image_id), patient_system=patient_system)
            file.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")))
            file.write("\n")
        batch.clear()

    for _, row, _cells in counted:
        if row.status is not ImageStatus.WAITING or cancelled:
            batch.append(row)
        if len(batch) == _TOGETHER:
            write()
    write()
    return counted.written()


def transaction(row: OutcomeRow, *, job: JobView, patient: str | None, patient_system: str | None = None) -> Resource:
    """The resources of one image, as a Bundle to be sent to a FHIR server.

    Args:
        row: with an outcome.
        job: of the row.
        patient: reference, or None.
        patient_system: of the reference, a URI. None is dermq's own.
    """
    # With the time of submission: the first job of another database must not have the same.
    key = identity(job.id, job.submitted_at, row.image_id, row.bundle_sha256)
    lesion_key = identity(job.id, job.submitted_at, patient, row.lesion_id)
    system = patient_system or f"{_SYSTEM}:patient-reference"
    person: Resource | None = {"identifier": {"system": system, "value": _text(patient)}} if patient else None
    device, lesion = _device(row), _body_structure(row, person, lesion_key)
    subject: Resource = {"subject": person} if person else {}
    when: Resource = {"effectiveDateTime": _instant(row.completed_at)} if row.completed_at else {}
    picture = _media(row, key, subject)
    about: Resource = {
        "status": "preliminary",
        **subject,
        **when,
        **({"bodySite": {"text": _text(row.site)}} if row.site else {}),
        "device": _to(device),
        "note": [{"text": NOT_REVIEWED}],
        "derivedFrom": [_to(picture)],
        **({"focus": [_to(lesion)]} if lesion else {}),
    }
    flag = FLAGS[flag_of(row)]
    observations: list[Resource] = [
        {
            "resourceType": "Observation",
            "id": f"flag-{key}",
            "code": _concept("triage-flag", TRIAGE_FLAG),
            "valueCodeableConcept": _concept(flag_of(row), flag),
            **about,
        },
        {
            "resourceType": "Observation",
            "id": f"probability-{key}",
            "code": _concept("probability", PROBABILITY),
            **_probability(row),
            **about,
        },
    ]
    report: Resource = {
        "resourceType": "DiagnosticReport",
        "id": f"report-{key}",
        "identifier": [{"system": _SYSTEM, "value": f"job {job.id} image {row.image_id}"}],
        "status": "preliminary",
        "category": [{"coding": [_CATEGORY]}],
        "code": _concept("triage", "Triage of a dermoscopic image: melanoma against nevus"),
        **subject,
        **when,
        "result": [_to(each) for each in observations],
        **_study(row),
        "media": [{"link": _to(picture)}],
        "conclusion": f"{flag}. {NOT_REVIEWED}",
    }
    resources = [device, picture, *([] if lesion is None else [lesion]), *observations, report]
    return {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {
                "fullUrl": f"{_SYSTEM}:{each['resourceType']}/{each['id']}",
                "resource": each,
                "request": {"method": "PUT", "url": f"{each['resourceType']}/{each['id']}"},
            }
            for each in resources
        ],
    }


def _device(row: OutcomeRow) -> Resource:
    return {
        "resourceType": "Device",
        "id": f"bundle-{row.bundle_sha256[:32]}",
        "identifier": [{"system": f"{_SYSTEM}:bundle-sha256", "value": row.bundle_sha256}],
        "deviceName": [{"name": f"dermq {row.bundle_name}", "type": "model-name"}],
        "version": [{"value": row.bundle_version}],
        "type": {"text": "Software that ranks dermoscopic images; research only"},
    }


def _study(row: OutcomeRow) -> Resource:
    """By its identifier, as the hospital's own resource has it."""
    if not row.study_uid:
        return {}
    identifier = {"system": "urn:dicom:uid", "value": f"urn:oid:{row.study_uid}"}
    return {"imagingStudy": [{"type": "ImagingStudy", "identifier": identifier}]}


def _media(row: OutcomeRow, key: str, subject: Resource) -> Resource:
    names = [{"system": f"{_SYSTEM}:image-sha256", "value": row.image_sha256}] if row.image_sha256 else []
    if row.instance_uid:
        names.append({"system": "urn:dicom:uid", "value": f"urn:oid:{row.instance_uid}"})
    return {
        "resourceType": "Media",
        "id": f"media-{key}",
        **({"identifier": names} if names else {}),
        "status": "completed",
        "type": {"text": "image"},
        # That of a picture of the PACS is in its study: it may have come as a secondary capture.
        **({} if row.instance_uid else {"modality": {"coding": [_MODALITY]}}),
        **subject,
        "content": {"title": _text(row.path)},
    }


def _body_structure(row: OutcomeRow, patient: Resource | None, key: str) -> Resource | None:
    """The lesion, where it is known and so is the patient, without whom FHIR has none."""
    if not row.lesion_id or not patient:
        return None
    return {
        "resourceType": "BodyStructure",
        "id": f"lesion-{key}",
        "identifier": [{"system": f"{_SYSTEM}:lesion", "value": _text(row.lesion_id)}],
        "morphology": {"text": "Skin lesion"},
        **({"location": {"text": _text(row.site)}} if row.site else {}),
        "patient": patient,
    }


def _probability(row: OutcomeRow) -> Resource:
    if row.status is not ImageStatus.SCORED or row.probability is None:
        return {"dataAbsentReason": {"text": _text(row.reason or "not scored")}}
    return {
        "valueQuantity": {"value": digits(row.probability), **_UNIT},
        "referenceRange": [
            {"high": {"value": digits(row.threshold), **_UNIT}, "text": f"{THRESHOLD} {_text(row.policy)}"}
        ],
    }


def _concept(code: str, text: str) -> Resource:
    return {"coding": [{"system": _SYSTEM, "code": str(code), "display": text}], "text": text}


def _to(resource: Resource) -> Resource:
    return {"reference": f"{resource['resourceType']}/{resource['id']}"}


def _instant(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")


def _text(text: str) -> str:
    """Without characters that FHIR's strings cannot hold: those are written as ``\\xNN``, so that names stay apart."""
    kept = "".join(
        letter
        if letter.isprintable() or (ord(letter) > 0x9F and not _SURROGATE.match(letter))
        else f"\\x{ord(letter):02x}"
        for letter in text.replace("\r", " ").replace("\n", " ").replace("\t", " ")
    ).strip()
    return kept or "not given"
