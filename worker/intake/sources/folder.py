"""A folder as a source: the image files at any depth, in the order of their names."""

import os
from collections.abc import Iterator
from pathlib import Path

from db.submission import NewImage
from worker.errors import ManifestError
from worker.images.formats import DICOM_MARK, DICOM_MARK_AT, DICOM_SUFFIXES, IMAGE_SUFFIXES
from worker.images.read import mtime_ns_of, path_to_text
from worker.intake.scan_report import ScanReport
from worker.intake.sources.base import MAX_LENGTHS, MAX_PATH_BYTES, is_too_long
from worker.regular_files import open_regular
from worker.terminal import printable


def walk_folder(root: Path, report: ScanReport) -> Iterator[NewImage]:
    """Find the image files under a folder, in the order of their names.

    Symbolic links to files are followed later by a worker, which refuses those that lead out of the folder. Links to
    folders are not followed. The entries of one folder are in memory together, about 300 bytes each, to be sorted.

    Args:
        root: the archive.
        report: filled with everything that is skipped.

    Yields:
        Each image with its size and modification time.

    Raises:
        ManifestError: the root cannot be read, or a path is too long for the database.
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
        folders = []
        for entry in entries:
            path = os.path.join(inside, entry.name)  # noqa: PTH118
            suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122
            is_folder = _is_folder(entry)
            if entry.name.startswith("."):
                report.hidden += 1
            elif is_folder:
                folders.append(path)
            elif entry.is_symlink() and os.path.isdir(os.path.join(root, path)):  # noqa: PTH112, PTH118
                report.linked_folders += 1
            elif suffix in IMAGE_SUFFIXES:
                yield _image(root, path_to_text(path), entry)
            elif is_folder is None:
                report.unreadable.append(path_to_text(path))
            elif _is_dicom(entry, suffix):
                report.dicom += 1
            else:
                report.count_other(suffix)
        pending.extend(reversed(folders))


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


def _image(root: Path, path: str, entry: os.DirEntry[str]) -> NewImage:
    if len(path) > MAX_LENGTHS["path"] or is_too_long(path):
        raise ManifestError(
            f"A path under {root} is too long: {len(path)} characters and {len(path.encode()):,} bytes, where "
            f"{MAX_LENGTHS['path']} and {MAX_PATH_BYTES:,} are allowed. It begins {printable(path[:80])}… Submit a "
            "folder further down."
        )
    try:
        found = entry.stat()
    except (OSError, ValueError):
        return NewImage(path=path, size_bytes=None, mtime_ns=None)
    return NewImage(path=path, size_bytes=found.st_size, mtime_ns=mtime_ns_of(found))
