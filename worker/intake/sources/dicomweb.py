"""A PACS as a source: studies by QIDO-RS (PS3.18, section 10.6), one image for each frame of their pictures."""

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from db.submission import NewImage
from worker.errors import ManifestError
from worker.images.dicom_header import is_picture_of_skin, name_of_kind
from worker.images.read import with_frame
from worker.images.read_dicomweb import DICOMWEB, DicomWebError, dicomweb_client, explain
from worker.intake.scan_report import ScanReport
from worker.intake.sources.ages import years_of
from worker.intake.sources.base import MAX_LENGTHS
from worker.intake.sources.passed_over import Selection

#: Studies of one answer.
_PAGE = 100
#: Attributes beyond those that every server sends.
_FIELDS = ("PatientAge", "PatientSex", "BodyPartExamined", "NumberOfFrames", "SOPClassUID")
_SEXES = {"M": "male", "F": "female", "O": "other"}


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
    if not is_picture_of_skin(kind) and not selection.strict:
        report.count_unread(f"DICOM {name_of_kind(kind)}")
        return
    frames = _value(found, "00280008")
    if not frames and kind.startswith("1.2.840.10008.5.1.4.1.1.7."):
        # Of a multi-frame object; not every server tells in a search.
        frames = _value(client.retrieve_instance_metadata(study_uid, series, instance), "00280008")
    sex = _value(found, "00100040") or _value(study, "00100040")
    image = {
        "size_bytes": 0,
        "mtime_ns": 0,
        "patient_ref": (_value(found, "00100020") or _value(study, "00100020"))[: MAX_LENGTHS["patient_ref"]] or None,
        "age": years_of(_value(found, "00101010") or _value(study, "00101010")),
        "sex": _SEXES.get(sex, sex)[: MAX_LENGTHS["sex"]] or None,
        "site": _value(found, "00180015")[: MAX_LENGTHS["site"]] or None,
        "study_uid": study_uid,
        "series_uid": series,
        "instance_uid": instance,
    }
    path = f"{study_uid}/{series}/{instance}.dcm"
    if not frames or int(frames) <= 1:
        yield NewImage(path=path, **image)  # type: ignore[arg-type]
        return
    for frame in range(1, int(frames) + 1):
        yield NewImage(path=with_frame(path, frame), **image)  # type: ignore[arg-type]


def _value(found: dict[str, Any], tag: str) -> str:
    """The first value of an attribute of DICOM's JSON (PS3.18, annex F). Empty where there is none."""
    values = found.get(tag, {}).get("Value") or [""]
    value = values[0]
    return str(value.get("Alphabetic", "") if isinstance(value, dict) else value).strip()
