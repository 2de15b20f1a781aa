"""The outcomes of a job as FHIR R4: one transaction for each image, a line each (NDJSON).

As the guides "DICOM SR to FHIR" of HL7 and "Integrated Reporting Applications" of IHE have it: a preliminary
DiagnosticReport with Observations of the probability and the flag, the Device that made them, and the picture as
ImagingStudy, where it came as DICOM, or else as Media. Each resource has an identifier that stays the same, and is put
there by PUT: whoever sends a line twice changes nothing.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TextIO

from db.status import ImageStatus
from db.worklist import OutcomeRow
from worker.output.in_words import FLAGS, NOT_REVIEWED, PROBABILITY, THRESHOLD, TRIAGE_FLAG, flag_of, identity
from worker.output.rows import CountedRows, Written

#: System of the codes that no standard has, and of identifiers.
_SYSTEM = "urn:dermq"
#: Rows whose patient references are looked up together.
_TOGETHER = 1_000
#: Dermoscopic Photography Image Storage; the modality of dermoscopy; a number without a unit.
_SOP_CLASS = {"system": "urn:ietf:rfc:3986", "code": "urn:oid:1.2.840.10008.5.1.4.1.1.77.1.7"}
_MODALITY = {"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "DMS", "display": "Dermoscopy"}
_UNIT = {"unit": "1", "system": "http://unitsofmeasure.org", "code": "1"}

Resource = dict[str, Any]


def write_fhir(
    rows: Iterable[OutcomeRow],
    file: TextIO,
    *,
    job: int,
    cancelled: bool = False,
    references_of: Callable[[Sequence[int]], dict[int, str]] | None = None,
) -> Written:
    """Write the images that have an outcome, and those of a cancelled job; the others are counted.

    Args:
        rows: in the order to write.
        file: opened for text.
        job: its number.
        cancelled: whether the job was cancelled, so that a human must look at waiting images.
        references_of: gives patient references by image id. None leaves them out.
    """
    counted = CountedRows(rows, cancelled=cancelled)
    batch: list[OutcomeRow] = []

    def write() -> None:
        references = references_of([row.image_id for row in batch]) if references_of is not None else {}
        for row in batch:
            line = transaction(row, job=job, patient=references.get(row.image_id))
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


def transaction(row: OutcomeRow, *, job: int, patient: str | None) -> Resource:
    """The resources of one image, as a Bundle to be sent to a FHIR server.

    Args:
        row: with an outcome.
        job: its number.
        patient: reference, or None.
    """
    key = identity(job, row.image_id, row.bundle_sha256)
    device, lesion = _device(row), _body_structure(row, patient)
    subject: Resource = {"subject": _patient(patient)} if patient else {}
    when: Resource = {"effectiveDateTime": _instant(row.completed_at)} if row.completed_at else {}
    picture = _imaging_study(row, patient) if row.study_uid and row.instance_uid else _media(row, key, subject)
    about: Resource = {
        "status": "preliminary",
        **subject,
        **when,
        **({"bodySite": {"text": _text(row.site)}} if row.site else {}),
        "device": _to(device),
        "note": [{"text": NOT_REVIEWED}],
        "derivedFrom": [_to(picture)],
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
        "identifier": [{"system": _SYSTEM, "value": f"job {job} image {row.image_id}"}],
        "status": "preliminary",
        "code": _concept("triage", "Triage of a dermoscopic image: melanoma against nevus"),
        **subject,
        **when,
        "result": [_to(each) for each in observations],
        **_shows(picture),
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


def _imaging_study(row: OutcomeRow, patient: str | None) -> Resource:
    instance = {"uid": row.instance_uid, "sopClass": _SOP_CLASS}
    series = [{"uid": row.series_uid, "modality": _MODALITY, "instance": [instance]}] if row.series_uid else []
    return {
        "resourceType": "ImagingStudy",
        "id": f"study-{identity(row.instance_uid)}",
        "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{row.study_uid}"}],
        "status": "available",
        # It must have one.
        "subject": _patient(patient) if patient else {"display": "the patient of the study"},
        **({"series": series} if series else {}),
    }


def _media(row: OutcomeRow, key: str, subject: Resource) -> Resource:
    digest = [{"system": f"{_SYSTEM}:image-sha256", "value": row.image_sha256}] if row.image_sha256 else []
    return {
        "resourceType": "Media",
        "id": f"media-{key}",
        **({"identifier": digest} if digest else {}),
        "status": "completed",
        "type": {"text": "image"},
        "modality": {"coding": [_MODALITY]},
        **subject,
        "content": {"title": _text(row.path)},
    }


def _shows(picture: Resource) -> Resource:
    if picture["resourceType"] == "ImagingStudy":
        return {"imagingStudy": [_to(picture)]}
    return {"media": [{"link": _to(picture)}]}


def _body_structure(row: OutcomeRow, patient: str | None) -> Resource | None:
    """The lesion, where it is known and so is the patient, without whom FHIR has none."""
    if not row.lesion_id or not patient:
        return None
    return {
        "resourceType": "BodyStructure",
        "id": f"lesion-{identity(patient, row.lesion_id)}",
        "identifier": [{"system": f"{_SYSTEM}:lesion", "value": _text(row.lesion_id)}],
        "morphology": {"text": "Skin lesion"},
        **({"location": {"text": _text(row.site)}} if row.site else {}),
        "patient": _patient(patient),
    }


def _probability(row: OutcomeRow) -> Resource:
    if row.status is not ImageStatus.SCORED or row.probability is None:
        return {"dataAbsentReason": {"text": _text(row.reason or "not scored")}}
    return {
        "valueQuantity": {"value": round(row.probability, 4), **_UNIT},
        "referenceRange": [
            {"high": {"value": round(row.threshold, 4), **_UNIT}, "text": f"{THRESHOLD} {_text(row.policy)}"}
        ],
    }


def _patient(reference: str) -> Resource:
    return {"identifier": {"system": f"{_SYSTEM}:patient-reference", "value": _text(reference)}}


def _concept(code: str, text: str) -> Resource:
    return {"coding": [{"system": _SYSTEM, "code": str(code), "display": text}], "text": text}


def _to(resource: Resource) -> Resource:
    return {"reference": f"{resource['resourceType']}/{resource['id']}"}


def _instant(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")


def _text(text: str) -> str:
    """Without characters that FHIR's strings cannot hold, and without spaces at the ends. Never empty."""
    kept = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text).strip()
    return kept or "not given"
