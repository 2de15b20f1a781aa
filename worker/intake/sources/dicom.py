"""DICOM files of a source: one image for each frame, with what the file says of patient and study."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from db.status import FailureCode
from db.submission import NewImage
from worker.images.dicom_header import MAX_FRAMES, DicomHeader, read_dicom_header
from worker.images.read import with_frame
from worker.intake.scan_report import ScanReport
from worker.intake.sources.ages import years_of
from worker.intake.sources.base import MAX_LENGTHS
from worker.intake.sources.passed_over import Selection
from worker.regular_files import open_regular

#: Longest identifier of DICOM (PS3.5, section 9.1).
_MAX_UID = 64


def dicom_images(
    file: Path | BinaryIO, image: NewImage, report: ScanReport, selection: Selection
) -> Iterator[NewImage]:
    """The images of a DICOM file.

    Args:
        file: to read the header of.
        image: the file as an image, without what it says.
        report: objects that are no pictures of skin, such as reports and CT images, are counted there.
        selection: whether they are recorded as images, which fail.
    """
    try:
        if isinstance(file, Path):
            with open_regular(file) as opened:
                header = read_dicom_header(opened)
        else:
            header = read_dicom_header(file)
    except OSError:
        header = None
    if header is None or image.failure is not None:
        # A worker says what is wrong with it.
        yield image
    else:
        yield from images_of_header(header, image, report, selection)


def images_of_header(
    header: DicomHeader, image: NewImage, report: ScanReport, selection: Selection
) -> Iterator[NewImage]:
    """The images of a DICOM object: one for each frame, with what it says of patient and study.

    Args:
        header: what the object says of itself.
        image: the object as an image, without that.
        report: as `dicom_images`.
        selection: as `dicom_images`.
    """
    if header.kind is not None:
        if selection.strict:
            yield image
        else:
            report.count_unread(f"DICOM {header.kind}")
    else:
        described = _described(image, header)
        if header.frames > MAX_FRAMES:
            sentence = f"it declares {header.frames:,} frames, where {MAX_FRAMES:,} are the most"
            yield replace(described, failure=(FailureCode.TOO_LARGE, sentence))
        elif header.frames == 1:
            yield described
        else:
            for frame in range(1, header.frames + 1):
                yield replace(described, path=with_frame(image.path, frame))


def _described(image: NewImage, header: DicomHeader) -> NewImage:
    return replace(
        image,
        patient_ref=_short(header.patient_id, MAX_LENGTHS["patient_ref"]),
        age=years_of(header.age or ""),
        sex=_short(header.sex, MAX_LENGTHS["sex"]),
        site=_short(header.site, MAX_LENGTHS["site"]),
        study_uid=_short(header.study_uid, _MAX_UID),
        series_uid=_short(header.series_uid, _MAX_UID),
        instance_uid=_short(header.instance_uid, _MAX_UID),
    )


def _short(text: str | None, longest: int) -> str | None:
    """None for a text that is too long: a part of an identifier would be another one."""
    return text if text is not None and len(text) <= longest else None
