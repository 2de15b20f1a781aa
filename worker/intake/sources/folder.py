"""A folder as a source: the image files at any depth, in the order of their names."""

import os
from collections.abc import Iterator, Sequence
from enum import Enum, auto
from pathlib import Path

from db.submission import NewImage
from worker.errors import ManifestError
from worker.images.formats import DICOM_MARK, DICOM_MARK_AT, DICOM_SUFFIXES, IMAGE_SUFFIXES, UNREAD_SUFFIXES
from worker.images.read import mtime_ns_of, path_to_text
from worker.intake.scan_report import ScanReport
from worker.intake.sources.base import is_too_long, shorten
from worker.intake.sources.passed_over import Selection, is_drawn_over, system_name
from worker.regular_files import open_regular

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
            if kind is _Kind.FOLDER:
                folders.append(path)
            elif kind is _Kind.IMAGE:
                yield _image(path_to_text(path), entry)
        pending.extend(reversed(folders))


class _Kind(Enum):
    """What happens to an entry of a folder."""

    FOLDER = auto()
    IMAGE = auto()
    #: The report counts it.
    PASSED_OVER = auto()


class _Stems:
    """The names of a folder's files without their suffixes, made on first use: few folders have masks."""

    def __init__(self, entries: Sequence["os.DirEntry[str]"]) -> None:
        self._entries = entries
        self._stems: set[str] | None = None

    def __contains__(self, stem: object) -> bool:
        if self._stems is None:
            self._stems = {os.path.splitext(entry.name)[0].lower() for entry in self._entries}  # noqa: PTH122
        return stem in self._stems


def _kind_of(entry: "os.DirEntry[str]", path: str, stems: _Stems, report: ScanReport, selection: Selection) -> _Kind:
    """What an entry is. Counts it where it is passed over."""
    name = entry.name
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122
    if selection.excludes(path):
        report.excluded += 1
        return _Kind.PASSED_OVER
    if (system := system_name(name)) is not None:
        report.system[system] += 1
        return _Kind.PASSED_OVER
    # Such as .IMG_1.HEIC.icloud: a hidden placeholder of a picture that is not here.
    placeholder = suffix in UNREAD_SUFFIXES and suffix == ".icloud"
    if name.startswith(".") and not selection.include_hidden and not placeholder:
        report.hidden += 1
        return _Kind.PASSED_OVER
    is_folder = _is_folder(entry)
    if is_folder:
        return _Kind.FOLDER
    if _leads_to_folder(entry):
        report.linked_folders += 1
    elif suffix in IMAGE_SUFFIXES:
        if not is_drawn_over(name, stems):
            return _Kind.IMAGE
        report.drawn += 1
    elif is_folder is None:
        report.unreadable.append(path_to_text(path))
    elif suffix in UNREAD_SUFFIXES:
        if selection.strict:
            return _Kind.IMAGE
        report.count_unread(suffix)
    elif _is_dicom(entry, suffix):
        if selection.strict:
            return _Kind.IMAGE
        report.dicom += 1
    else:
        report.count_other(suffix)
    return _Kind.PASSED_OVER


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


def _is_dicom(entry: os.DirEntry[str], suffix: str) -> bool:
    """By the suffix; or by content when there is none or it is a number, as at the end of a DICOM identifier."""
    if suffix in DICOM_SUFFIXES:
        return True
    if suffix and not suffix[1:].isdecimal():
        return False
    try:
        if not entry.is_file(follow_symlinks=False):
            return False
        with open_regular(Path(entry.path)) as file:
            return file.read(DICOM_MARK_AT + len(DICOM_MARK))[DICOM_MARK_AT:] == DICOM_MARK
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
