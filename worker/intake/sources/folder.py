"""A folder as a source: the image files at any depth, in the order of their names."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from db.submission import NewImage
from worker.errors import ManifestError
from worker.images.formats import IMAGE_SUFFIXES, PLACEHOLDER
from worker.images.identify import is_dicom
from worker.images.read import mtime_ns_of, path_to_text
from worker.intake.scan_report import ScanReport
from worker.intake.sources.base import is_too_long, shorten
from worker.intake.sources.dicom import dicom_images
from worker.intake.sources.passed_over import Kind, Selection, kind_of_dicom, kind_of_name, system_name
from worker.regular_files import open_regular

#: Bytes by which a DICOM file is recognised.
_HEAD_BYTES = 132
#: Every entry that is an image.
EVERYTHING = Selection()


def walk_folder(root: Path, report: ScanReport, selection: Selection = EVERYTHING) -> Iterator[NewImage]:
    """Find the image files under a folder, in the order of their names.

    Symbolic links to files are followed later by a worker, which refuses those that lead out of the folder. Links to
    folders are not followed. The entries of one folder are in memory together, about 300 bytes each, to be sorted.

    Args:
        root: the archive.
        report: filled with everything that is passed over.
        selection: what is taken.

    Yields:
        Each image with its size and modification time.

    Raises:
        ManifestError: the root cannot be read.
    """
    pending = [""]
    while pending:
        inside = pending.pop()
        folder = os.path.join(root, inside)  # noqa: PTH118 - names that are not UTF-8
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            if not inside:
                raise ManifestError(
                    f"The folder {root} cannot be read: {error.strerror}. Check the path and its permissions."
                ) from None
            report.unreadable.append(path_to_text(inside))
            continue
        stems = _Stems(entries)
        folders = []
        for entry in entries:
            path = os.path.join(inside, entry.name)  # noqa: PTH118
            kind = _kind_of(entry, path, stems, report, selection)
            if kind is None:
                folders.append(path)
            elif kind is Kind.IMAGE:
                yield _image(path_to_text(path), entry)
            elif kind is Kind.DICOM and entry.is_symlink():
                # It may lead out of the archive: a worker follows it, with every check.
                yield _image(path_to_text(path), entry)
            elif kind is Kind.DICOM:
                yield from dicom_images(Path(entry.path), _image(path_to_text(path), entry), report, selection)
        pending.extend(reversed(folders))


class _Stems:
    """The names of a folder's files without their suffixes, made on first use: few folders have masks."""

    def __init__(self, entries: Sequence["os.DirEntry[str]"]) -> None:
        self._entries = entries
        self._stems: set[str] | None = None

    def __contains__(self, stem: object) -> bool:
        if self._stems is None:
            self._stems = {os.path.splitext(entry.name)[0].lower() for entry in self._entries}  # noqa: PTH122
        return stem in self._stems


def _kind_of(
    entry: "os.DirEntry[str]", path: str, stems: _Stems, report: ScanReport, selection: Selection
) -> Kind | None:
    """What an entry is, None for a folder that is entered. Counts it where it is passed over."""
    name = entry.name
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122
    if selection.excludes(path):
        report.excluded += 1
        return Kind.PASSED_OVER
    if (system := system_name(name)) is not None:
        report.system[system] += 1
        return Kind.PASSED_OVER
    # Such as .IMG_1.HEIC.icloud: a hidden placeholder of a picture that is not here.
    if name.startswith(".") and not selection.include_hidden and suffix != PLACEHOLDER:
        report.hidden += 1
        return Kind.PASSED_OVER
    is_folder = _is_folder(entry)
    if is_folder:
        return None
    if _leads_to_folder(entry):
        report.linked_folders += 1
    elif is_folder is None and suffix not in IMAGE_SUFFIXES:
        report.unreadable.append(path_to_text(path))
    else:
        kind = kind_of_name(name, stems, report, selection)
        return _perhaps_dicom(entry, suffix, report, selection) if kind is Kind.PERHAPS_DICOM else kind
    return Kind.PASSED_OVER


def _perhaps_dicom(entry: "os.DirEntry[str]", suffix: str, report: ScanReport, selection: Selection) -> Kind:
    """By content: without a suffix, or with a number as at the end of an identifier."""
    if not _begins_as_dicom(entry):
        report.count_other(suffix)
        return Kind.PASSED_OVER
    return kind_of_dicom(report, selection)


def _leads_to_folder(entry: "os.DirEntry[str]") -> bool:
    """Whether it is a symbolic link to a folder. False where the file system does not tell."""
    try:
        return entry.is_symlink() and entry.is_dir()
    except OSError:
        return False


def _is_folder(entry: os.DirEntry[str]) -> bool | None:
    """None when it is unknown: some file systems report an entry's kind only by `stat`, which may fail."""
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return None


def _begins_as_dicom(entry: "os.DirEntry[str]") -> bool:
    try:
        if not entry.is_file(follow_symlinks=False):
            return False
        with open_regular(Path(entry.path)) as file:
            return is_dicom(file.read(_HEAD_BYTES))
    except OSError:
        return False


def _image(path: str, entry: "os.DirEntry[str]") -> NewImage:
    if is_too_long(path):
        name, failure = shorten(path)
        return NewImage(path=name, size_bytes=None, mtime_ns=None, failure=failure)
    try:
        found = entry.stat()
    except (OSError, ValueError):
        return NewImage(path=path, size_bytes=None, mtime_ns=None)
    return NewImage(path=path, size_bytes=found.st_size, mtime_ns=mtime_ns_of(found))
