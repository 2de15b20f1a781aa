"""What a source holds: the image files of a folder, or the rows of a CSV manifest. Both stream."""

import os
from collections.abc import Iterator
from pathlib import Path

from db.submission import NewImage
from worker.errors import ManifestError
from worker.images.formats import DICOM_MARK, DICOM_MARK_AT, DICOM_SUFFIXES, IMAGE_SUFFIXES
from worker.images.read import path_to_text
from worker.intake.scan_report import FolderReport
from worker.intake.sources.base import MAX_LENGTHS, MAX_PATH_BYTES, is_too_long, with_file_times


def walk_folder(root: Path, report: FolderReport) -> Iterator[NewImage]:
    """Find the image files under a folder, in the order of their names.

    Symbolic links to files are taken in (a worker refuses those that lead out), links to folders are not followed. The
    entries of one folder are in memory together, some 300 bytes each, for their order.

    Args:
        root: the archive.
        report: filled with what was passed over.

    Yields:
        Each image with its size and time of modification.

    Raises:
        ManifestError: the root itself cannot be read, or a path is longer than the database takes.
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
                raise ManifestError(f"Received: folder {root}, which cannot be read: {error.strerror}.") from None
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
                yield _seen(root, path_to_text(path))
            elif is_folder is None:
                report.unreadable.append(path_to_text(path))
            elif _is_dicom(entry, suffix):
                report.dicom += 1
            else:
                report.count_other(suffix)
        pending.extend(reversed(folders))


def _is_folder(entry: os.DirEntry[str]) -> bool | None:
    """None when it cannot be told, on file systems that tell an entry's kind only when asked."""
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return None


def _is_dicom(entry: os.DirEntry[str], suffix: str) -> bool:
    """By its name, or by its content where the name has no suffix or ends in a number, as a DICOM identifier does."""
    if suffix in DICOM_SUFFIXES:
        return True
    if suffix and not suffix[1:].isdecimal():
        return False
    try:
        # Not blocking: what was a file a moment ago may be a named pipe by now.
        if not entry.is_file(follow_symlinks=False):
            return False
        with open(entry.path, "rb", opener=_open_without_blocking) as file:
            return file.read(DICOM_MARK_AT + len(DICOM_MARK))[DICOM_MARK_AT:] == DICOM_MARK
    except OSError:
        return False


def _open_without_blocking(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW)


def _seen(root: Path, path: str) -> NewImage:
    if len(path) > MAX_LENGTHS["path"] or is_too_long(path):
        raise ManifestError(
            f"A path under {root} has {len(path)} characters and {len(path.encode()):,} bytes; the longest that is "
            f"taken in has {MAX_LENGTHS['path']} and {MAX_PATH_BYTES:,}. Submit a folder further down."
        )
    return with_file_times(root, NewImage(path=path, size_bytes=None, modified_ns=None))
