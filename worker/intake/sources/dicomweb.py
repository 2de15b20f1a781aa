"""A PACS as a source: studies by QIDO-RS (PS3.18, section 10.6), one image for each frame of their pictures."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from db.submission import NewImage
from worker.errors import ManifestError
from worker.images.dicom_header import DicomHeader, is_picture_of_skin, name_of_kind, sex_in_words
from worker.images.read_dicomweb import DICOMWEB, DicomWebError, dicomweb_client, explain
from worker.intake.scan_report import ScanReport
from worker.intake.sources.dicom import images_of_header
from worker.intake.sources.passed_over import Selection

#: Studies of one answer.
_PAGE = 100
#: Attributes beyond those that every server sends.
_FIELDS = ("PatientAge", "PatientSex", "BodyPartExamined", "NumberOfFrames", "SOPClassUID")
#: Attributes whose values may be shown: they tell of no single patient or study.
_SHOWN = ("StudyDate", "StudyTime", "ModalitiesInStudy", "Modality", "InstitutionName", "StudyDescription")
#: Digits that stand for any other value.
_DIGITS = 12


def dicomweb_root(address: str, query: Sequence[str]) -> str:
    """What stands for a PACS and a search in it: ``dicomweb+https://pacs/dicom-web?StudyDate=2019``.

    Args:
        address: of the service, with http or https.
        query: conditions, each ``Attribute=value``.

    Raises:
        ManifestError: the address or a condition is none.
    """
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ManifestError(f"{address} is no address of a PACS. Write it as https://pacs/dicom-web.")
    if parts.username or parts.password:
        raise ManifestError(
            "The address must not hold a name or a password: it is stored. Set DERMQ_DICOMWEB_USER and "
            "DERMQ_DICOMWEB_PASSWORD."
        )
    pairs = []
    for condition in query:
        name, equals, value = condition.partition("=")
        if not equals or not name.isalnum():
            raise ManifestError(f"--query {condition!r}: write Attribute=value, such as StudyDate=20190101-20191231.")
        pairs.append((name, value))
    plain = f"{DICOMWEB}{address.partition('?')[0].rstrip('/')}"
    return f"{plain}?{urlencode(pairs)}" if pairs else plain


def shown_search(root: str) -> str | None:
    """The search of a root as it is stored and shown, None without one. Values that may name a patient are digests.

    Two equal searches have the same text, by which an interrupted submission is found again.
    """
    service, _, query = root.partition("?")
    pairs = [
        (name, value if name in _SHOWN else hashlib.sha256(value.encode()).hexdigest()[:_DIGITS])
        for name, value in parse_qsl(query)
    ]
    return f"{service}?{urlencode(pairs)}" if pairs else None


def list_pacs(root: str, report: ScanReport, selection: Selection) -> Iterator[NewImage]:
    """Find the pictures of skin of the studies that fit.

    Args:
        root: from `dicomweb_root`.
        report: objects that are no pictures of skin are counted there.
        selection: with ``strict``, they are recorded as images, which fail.

    Raises:
        ManifestError: the PACS does not answer.
    """
    service, _, query = root.partition("?")
    try:
        client = dicomweb_client(service)
        for study in _studies(client, dict(parse_qsl(query))):
            for found in client.search_for_instances(_value(study, "0020000D"), fields=list(_FIELDS)):
                yield from _instance(client, study, found, report, selection)
    except DicomWebError as error:
        raise ManifestError(f"{error}.") from None
    except (ManifestError, MemoryError):
        raise
    except Exception as error:
        # Of requests: a dozen classes.
        _, sentence = explain(error)
        raise ManifestError(f"{service.removeprefix(DICOMWEB)}: {sentence}.") from None


def _studies(client: Any, filters: dict[str, str]) -> Iterator[dict[str, Any]]:
    offset = 0
    while True:
        page = client.search_for_studies(limit=_PAGE, offset=offset, search_filters=filters, fields=list(_FIELDS[:3]))
        yield from page
        if len(page) < _PAGE:
            return
        offset += len(page)


def _instance(
    client: Any, study: dict[str, Any], found: dict[str, Any], report: ScanReport, selection: Selection
) -> Iterator[NewImage]:
    study_uid, series, instance = _value(study, "0020000D"), _value(found, "0020000E"), _value(found, "00080018")
    kind = _value(found, "00080016")
    frames = _value(found, "00280008")
    if not frames and kind.startswith("1.2.840.10008.5.1.4.1.1.7."):
        # Of a multi-frame object; not every server tells in a search.
        frames = _value(client.retrieve_instance_metadata(study_uid, series, instance), "00280008")
    header = DicomHeader(
        kind=None if is_picture_of_skin(kind) else name_of_kind(kind),
        frames=int(frames or 1),
        study_uid=study_uid,
        series_uid=series,
        instance_uid=instance,
        patient_id=_value(found, "00100020") or _value(study, "00100020") or None,
        age=_value(found, "00101010") or _value(study, "00101010"),
        sex=sex_in_words(_value(found, "00100040") or _value(study, "00100040")),
        site=_value(found, "00180015") or None,
    )
    image = NewImage(path=f"{study_uid}/{series}/{instance}.dcm", size_bytes=0, mtime_ns=0)
    yield from images_of_header(header, image, report, selection)


def _value(found: dict[str, Any], tag: str) -> str:
    """The first value of an attribute of DICOM's JSON (PS3.18, annex F). Empty where there is none."""
    values = found.get(tag, {}).get("Value") or [""]
    value = values[0]
    return str(value.get("Alphabetic", "") if isinstance(value, dict) else value).strip()
