"""A ZIP or TAR archive as a source: its members in the order of their names, nothing unpacked to a disk."""

import os
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

from db.status import FailureCode
from db.submission import NewImage
from worker.errors import ImageFaultError, ManifestError
from worker.images.identify import is_dicom
from worker.images.read import path_to_text
from worker.images.read_archive import Member, NoArchiveError, archive_mtime_ns, open_archive, read_member
from worker.intake.scan_report import ScanReport
from worker.intake.sources.base import is_too_long, shorten
from worker.intake.sources.dicom import dicom_images
from worker.intake.sources.passed_over import Kind, Selection, kind_of_dicom, kind_of_path

#: Archives inside an archive are named and not opened.
_NESTED = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst")
#: Largest DICOM member that is read at submission, for its header, and bytes by which it is recognised.
_MAX_DICOM_BYTES, _HEAD_BYTES = 256 * 1024 * 1024, 132


def list_archive(archive: Path, report: ScanReport, selection: Selection) -> Iterator[NewImage]:
    """Find the images in an archive.

    Args:
        archive: a ZIP, or a TAR without compression.
        report: filled with everything that is passed over.
        selection: what is taken.

    Yields:
        Each image. One that cannot be read, because it is encrypted or its path leads out, fails by its name.

    Raises:
        ManifestError: it is no archive that is read.
    """
    try:
        opened = open_archive(str(archive))
        mtime_ns = archive_mtime_ns(str(archive))
    except NoArchiveError as error:
        raise ManifestError(f"{archive} is {error}.") from None
    except OSError as error:
        raise ManifestError(f"{archive} cannot be read: {error.strerror}.") from None
    report.repeated = opened.hidden
    stems = {os.path.splitext(member.name)[0].lower() for member in opened.members()}  # noqa: PTH122
    for member in opened.members():
        folder, _, name = member.name.rpartition("/")
        if not name:
            report.count_other("")
            continue
        if name.lower().endswith(_NESTED):
            report.count_unread(f"nested {os.path.splitext(name)[1].lower()}")  # noqa: PTH122
            continue
        kind = kind_of_path(member.name, _Beside(stems, folder), report, selection)
        if kind is Kind.PASSED_OVER:
            continue
        image = _image(member, mtime_ns)
        if kind is Kind.IMAGE or image.failure is not None:
            yield image
            continue
        if kind is Kind.PERHAPS_DICOM:
            if not is_dicom(opened.head(member.name, _HEAD_BYTES)):
                report.count_other(os.path.splitext(name)[1].lower())  # noqa: PTH122
                continue
            kind = kind_of_dicom(report, selection)
        if kind is Kind.DICOM:
            data = _read(archive, image)
            yield from dicom_images(BytesIO(data or b""), image, report, selection)
        elif kind is Kind.IMAGE:
            yield image


class _Beside:
    """The stems of the members of one folder."""

    def __init__(self, stems: set[str], folder: str) -> None:
        self._stems, self._folder = stems, f"{folder.lower()}/" if folder else ""

    def __contains__(self, stem: object) -> bool:
        return f"{self._folder}{stem}" in self._stems


def _image(member: Member, mtime_ns: int) -> NewImage:
    path = path_to_text(member.name)
    image = NewImage(path=path, size_bytes=member.size, mtime_ns=mtime_ns)
    if is_too_long(path):
        path, failure = shorten(path)
        return replace(image, path=path, failure=failure)
    if member.name.startswith("/") or ".." in member.name.split("/"):
        return replace(image, failure=(FailureCode.OUTSIDE_ROOT, "its path leads out of the archive"))
    if member.problem is not None:
        return replace(image, failure=(FailureCode.UNSUPPORTED_FORMAT, member.problem))
    return image


def _read(archive: Path, image: NewImage) -> bytes | None:
    try:
        return read_member(
            str(archive), image.path, size_bytes=image.size_bytes, mtime_ns=None, max_bytes=_MAX_DICOM_BYTES
        ).data
    except ImageFaultError:
        return None
