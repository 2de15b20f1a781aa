"""What a DICOM file says of itself, without its pixels. Loads no decoder: submission reads it."""

import logging
import re
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from pydicom import Dataset

# They would write odd values, and what they ask a PACS for, to standard error: these may be a patient's.
for _name in ("pydicom", "dicomweb_client"):
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)

#: Kinds of objects that are scored (PS3.4, annex B.5): photographs of skin, and screenshots and scans of them.
_KINDS = {
    "1.2.840.10008.5.1.4.1.1.77.1.7": "Dermoscopic Photography",
    "1.2.840.10008.5.1.4.1.1.77.1.4": "VL Photographic",
    "1.2.840.10008.5.1.4.1.1.7": "Secondary Capture",
    "1.2.840.10008.5.1.4.1.1.7.1": "Multi-frame Single Bit Secondary Capture",
    "1.2.840.10008.5.1.4.1.1.7.2": "Multi-frame Grayscale Byte Secondary Capture",
    "1.2.840.10008.5.1.4.1.1.7.3": "Multi-frame Grayscale Word Secondary Capture",
    "1.2.840.10008.5.1.4.1.1.7.4": "Multi-frame True Color Secondary Capture",
}
#: Attributes that are read at submission. The patient's name is not among them.
_TAGS = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "NumberOfFrames", "Rows", "Columns",
    "PatientID", "PatientAge", "PatientSex", "BodyPartExamined", "AnatomicRegionSequence", "SpecificCharacterSet",
)  # fmt: skip
#: Frames of one file.
MAX_FRAMES = 10_000
#: Deflated Explicit VR Little Endian, within the first bytes of a file; the most that such a file may inflate to.
_DEFLATED, _META_BYTES, _MAX_INFLATED = b"1.2.840.10008.1.2.1.99", 2_048, 256 * 1024 * 1024
_PART = 1024 * 1024
_IDENTIFIERS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
#: Attributes of patient and study that a report repeats (PS3.3, C.7.1.1 and C.7.2.1), and identifiers.
_EVIDENCE = (
    "SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "NumberOfFrames",
    "Rows", "Columns", "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "StudyDate",
    "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName", "StudyDescription", "TimezoneOffsetFromUTC",
)  # fmt: skip
#: Those of them that a report must have, if only without a value.
_REQUIRED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
_DATE = re.compile(r"\d{4}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")
_TIME = re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?")
_SEXES = {"M": "male", "F": "female", "O": "other"}


@dataclass(frozen=True, kw_only=True)
class DicomHeader:
    """What a file says of itself, beside its pixels. Empty texts are None.

    Args:
        kind: of object, by name, where it is none that is scored. None where it is.
        frames: pictures in it.
    """

    kind: str | None
    frames: int
    study_uid: str | None
    series_uid: str | None
    instance_uid: str | None
    patient_id: str | None
    age: str | None
    sex: str | None
    site: str | None


@cache
def dicom_is_installed() -> bool:
    """Whether DICOM files can be read here."""
    return find_spec("pydicom") is not None


def is_picture_of_skin(sop_class: str) -> bool:
    """Whether objects of this class are scored."""
    return sop_class in _KINDS


def name_of_kind(uid: str) -> str:
    """The name of a class of objects or of a transfer syntax, such as ``CT Image Storage``."""
    from pydicom.uid import UID

    name = UID(uid).name
    return name if uid and name != uid else "object of an unknown kind"


def sex_in_words(sex: str | None) -> str | None:
    """``female`` for ``F``; what is no code of DICOM stays."""
    return _SEXES.get(sex, sex) if sex else None


def read_dicom_header(file: BinaryIO) -> DicomHeader | None:
    """Read what a file says of itself. None where it is no data set that can be parsed: decoding says why.

    Raises:
        OSError: the file cannot be read.
    """
    import pydicom

    with quiet_pydicom():
        try:
            if inflates_too_far(file):
                return None
            dataset = pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=list(_TAGS))
            return _header(dataset)
        except (OSError, MemoryError):
            raise
        except Exception:
            # Of a broken data set pydicom raises a dozen classes.
            return None


def inflates_too_far(file: BinaryIO) -> bool:
    """Whether a file is deflated as a whole and inflates to more than any picture needs: pydicom inflates it at once.

    The file is read from its beginning, and left there.
    """
    file.seek(0)
    head = file.read(_META_BYTES)
    file.seek(0)
    if _DEFLATED not in head or head[132:136] != b"\x02\0\0\0":
        return False
    # Group 2 begins with its own length (PS3.10, section 7.1).
    file.seek(144 + int.from_bytes(head[140:144], "little"))
    inflate, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    try:
        while size <= _MAX_INFLATED and (part := inflate.unconsumed_tail or file.read(_PART)):
            size += len(inflate.decompress(part, _PART))
    except zlib.error:
        pass
    file.seek(0)
    return size > _MAX_INFLATED


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """pydicom warns of every odd value, with the value: it may be a patient's."""
    import pydicom.config

    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _header(dataset: "Dataset") -> DicomHeader | None:
    sop_class = str(dataset.get("SOPClassUID", ""))
    if not sop_class:
        return None
    kind = None if sop_class in _KINDS else name_of_kind(sop_class)
    if kind is None and not dataset.get("Rows"):
        kind = "object without a picture"
    region = dataset.get("AnatomicRegionSequence") or []
    site = str(region[0].get("CodeMeaning", "")) if region else ""
    sex = _text(dataset, "PatientSex")
    return DicomHeader(
        kind=kind,
        frames=max(1, int(dataset.get("NumberOfFrames") or 1)),
        study_uid=_text(dataset, "StudyInstanceUID"),
        series_uid=_text(dataset, "SeriesInstanceUID"),
        instance_uid=_text(dataset, "SOPInstanceUID"),
        patient_id=_text(dataset, "PatientID"),
        age=_text(dataset, "PatientAge"),
        sex=sex_in_words(sex),
        site=(site or str(dataset.get("BodyPartExamined", "") or "")).strip() or None,
    )


def _text(dataset: "Dataset", name: str) -> str | None:
    return str(dataset.get(name) or "").replace("\0", "").strip() or None


def _make_plain(found: "Dataset") -> None:
    """Leave out values that are against the standard and that no report can repeat: dates, times and codes of sex."""
    sets = found.get("SpecificCharacterSet")
    if sets is not None and not isinstance(sets, str):
        # The empty first value of a list stands for the default (PS3.3, C.12.1.1.2).
        found.SpecificCharacterSet = [each or "ISO 2022 IR 6" for each in sets]
    for name, pattern in (("StudyDate", _DATE), ("PatientBirthDate", _DATE), ("StudyTime", _TIME)):
        if name in found and not pattern.fullmatch(str(found.get(name) or "")):
            setattr(found, name, None)
    if found.get("PatientSex") not in (None, "", *_SEXES):
        found.PatientSex = None


def read_evidence(data: bytes) -> "Dataset":
    """What a report of an image must repeat of it: patient, study and identifiers. It has no pixels.

    Args:
        data: the file.

    Raises:
        ValueError: it is no DICOM file, or without identifiers.
    """
    from pydicom import dcmread

    with quiet_pydicom():
        try:
            if inflates_too_far(BytesIO(data)):
                raise ValueError("it inflates to more than any picture needs")
            found = dcmread(BytesIO(data), stop_before_pixels=True, force=True, specific_tags=list(_EVIDENCE))
            complete = all(found.get(name) for name in _IDENTIFIERS)
        except MemoryError:
            raise
        except Exception as error:
            # Of a broken data set pydicom raises a dozen classes.
            raise ValueError("it is no DICOM file that can be read") from error
        if not complete:
            raise ValueError("it has no identifiers")
        _make_plain(found)
        for name in _REQUIRED:
            if name not in found:
                setattr(found, name, None)
    return found
