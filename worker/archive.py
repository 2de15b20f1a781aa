"""What a source holds: the image files of a folder, or the rows of a CSV manifest. Both stream."""

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TextIO

from db.submission import NewImage
from worker.errors import ManifestError
from worker.folder_report import FolderReport
from worker.images.read import noted_ns, path_to_text, text_to_path

#: Endings of the files that a folder is searched for, in lower case. What is inside is found out by content.
IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".bmp", ".webp"))
#: Endings of DICOM files, and where their content says what they are: behind a preamble of 128 bytes.
_DICOM_SUFFIXES = frozenset((".dcm", ".dicom", ".dic"))
_DICOM_MARK, _DICOM_MARK_AT = b"DICM", 128
#: Columns of a manifest that are taken in.
MANIFEST_COLUMNS = ("path", "lesion_id", "patient_ref", "age", "sex", "site")
#: What may stand between the cells of a manifest; the first where the header has a single column.
_DELIMITERS = (",", ";", "\t")
#: How workbooks begin: .xlsx and .ods, and .xls.
_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
#: How a text in UTF-16 begins, half of whose bytes are NUL.
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
#: Bytes that are looked at to tell what a file is that should be a table.
_HEAD = 4_096
#: Letters that are shown of a column's name, and names of unknown columns.
_SHOWN_LETTERS, _SHOWN_COLUMNS = 40, 5
#: Longest text in each column, in characters; the database's limits.
_LONGEST = {"path": 800, "lesion_id": 200, "patient_ref": 200, "sex": 50, "site": 200}
#: Longest path in bytes of UTF-8: a key of PostgreSQL's index holds no more than 2,704.
_LONGEST_PATH_BYTES = 2_400
#: Wrong lines named in one message.
_NAMED_FAULTS = 10
#: Ages in years outside this range are taken for a mistake.
_AGES = (0.0, 130.0)


class _RowError(Exception):
    """A line of a manifest is wrong; the text says how."""


@dataclass(kw_only=True)
class _Faults:
    """The wrong lines of a manifest: the first ones by name, the others by their number alone."""

    named: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, fault: str) -> None:
        self.count += 1
        if self.count <= _NAMED_FAULTS:
            self.named.append(fault)


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
    if suffix in _DICOM_SUFFIXES:
        return True
    if suffix and not suffix[1:].isdecimal():
        return False
    try:
        # Not blocking: what was a file a moment ago may be a named pipe by now.
        if not entry.is_file(follow_symlinks=False):
            return False
        with open(entry.path, "rb", opener=_open_without_blocking) as file:
            return file.read(_DICOM_MARK_AT + len(_DICOM_MARK))[_DICOM_MARK_AT:] == _DICOM_MARK
    except OSError:
        return False


def _open_without_blocking(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW)


def read_manifest(manifest: Path, root: Path) -> Iterator[NewImage]:
    """Check a CSV manifest from beginning to end, then stream its rows.

    Columns: ``path`` (relative to the root, or absolute), and optionally ``lesion_id``, ``patient_ref``, ``age`` in
    years, ``sex`` and ``site``. Separated by commas, semicolons or tabs, UTF-8 with or without byte order mark.

    Args:
        manifest: the CSV file.
        root: folder that its paths are relative to.

    Returns:
        Iterator of one image per row; the rows are in order, repeated paths included.

    Raises:
        ManifestError: it cannot be read, lacks ``path``, has an unknown column, or a row is wrong; names the line.
    """
    if not root.is_dir():
        raise ManifestError(f"Received: root {root}. Expected: the folder that the manifest's paths are relative to.")
    if manifest.suffix.lower() in IMAGE_SUFFIXES:
        raise ManifestError(f"Received: {manifest}, a picture. Expected: the folder that holds it, or a CSV manifest.")
    if other := no_table(manifest):
        raise ManifestError(f"Received: {manifest}, which is {other}. Expected: a table in text; save it as CSV UTF-8.")
    faults = _Faults()
    for _ in _rows(manifest, root, faults):
        pass
    if faults.count:
        rest = f" … and {faults.count - _NAMED_FAULTS} more" if faults.count > _NAMED_FAULTS else ""
        raise ManifestError(f"{manifest}: {'; '.join(faults.named)}{rest}.")
    return (_with_sizes(root, image) for image in _rows(manifest, root, _Faults()))


def _rows(manifest: Path, root: Path, faults: _Faults) -> Iterator[NewImage]:
    """The rows that are right; what is wrong with the others goes into ``faults``."""
    # As the operator calls it, and as it is where a link is followed: an absolute path may begin with either.
    roots = (str(root), os.path.realpath(root))
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as file:
            reader = _reader(manifest, file)
            for row in reader:
                try:
                    yield _row(row, roots)
                except _RowError as fault:
                    # The line's number, not its content, which may be a patient's. The header was read before it.
                    faults.add(f"line {reader.line_num + 1}: {fault}")
    except OSError as error:
        raise ManifestError(
            f"Received: {manifest}, which cannot be read: {error.strerror}. Expected: a folder of images, or a CSV "
            "manifest."
        ) from None
    except UnicodeDecodeError as error:
        raise ManifestError(f"{manifest} is not UTF-8 (byte {error.start}). Save it as CSV UTF-8.") from None
    except csv.Error as error:
        raise ManifestError(f"{manifest} is not CSV: {error}.") from None


def _reader(manifest: Path, file: TextIO) -> "csv.DictReader[str]":
    header = file.readline()
    # No column that is taken in has one of them in its name.
    delimiter = max(_DELIMITERS, key=header.count)
    names = [name.strip().lower() for name in next(csv.reader([header], delimiter=delimiter), [])]
    unknown = [name for name in names if name not in MANIFEST_COLUMNS]
    if "path" not in names or unknown or len(set(names)) < len(names):
        if not names:
            raise ManifestError(f"Received: {manifest}, an empty file. Expected: a CSV manifest with a column 'path'.")
        faults = [
            *(["it lacks 'path'"] if "path" not in names else []),
            *(f"{_shortened(name)!r} is none of them" for name in unknown[:_SHOWN_COLUMNS]),
            *([f"nor are {len(unknown) - _SHOWN_COLUMNS} more"] if len(unknown) > _SHOWN_COLUMNS else []),
            *(f"{name!r} stands there twice" for name in sorted({name for name in names if names.count(name) > 1})),
        ]
        raise ManifestError(
            f"Received: {manifest} with the columns {_listed(names)}. Expected: path, and optionally "
            f"{', '.join(MANIFEST_COLUMNS[1:])}, each once and no others; {', '.join(faults)}."
        )
    return csv.DictReader(file, fieldnames=names, delimiter=delimiter, strict=True)


def _shortened(name: str) -> str:
    return name if len(name) <= _SHOWN_LETTERS else f"{name[:_SHOWN_LETTERS]}…"


def _listed(names: Sequence[str]) -> str:
    # One more than there can be in a right manifest: what is wrong is then seen.
    shown = len(MANIFEST_COLUMNS) + 1
    rest = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(map(_shortened, names[:shown])) + rest


def no_table(path: Path) -> str | None:
    """What a file is that cannot be a table in text, by how it begins; None for what may be one, or cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return None
    if head.startswith(_UTF_16):
        # A table after all, of which the reader says more.
        return None
    if head.startswith(_WORKBOOKS):
        # Spreadsheet programs keep their tables in a ZIP or a compound file.
        return "a workbook"
    if head[_DICOM_MARK_AT:].startswith(_DICOM_MARK):
        return "a DICOM file"
    # Further down a NUL is a fault of its line, which is told by its number.
    return "no text" if b"\0" in head.partition(b"\n")[0] else None


def _row(row: dict[str | None, str | list[str] | None], roots: Sequence[str]) -> NewImage:
    if None in row or None in row.values():
        raise _RowError("more or fewer cells than the header has columns")
    cells = {str(name): str(value).strip() for name, value in row.items()}
    for name, longest in _LONGEST.items():
        if len(cells.get(name, "")) > longest or "\0" in cells.get(name, ""):
            raise _RowError(f"{name} is longer than {longest} characters or holds a NUL")
    if not cells["path"]:
        raise _RowError("path is empty")
    path = _relative(cells["path"], roots)
    if _is_too_long(path):
        raise _RowError(f"path is longer than {_LONGEST_PATH_BYTES:,} bytes")
    return NewImage(
        path=path,
        size_bytes=None,
        modified_ns=None,
        lesion_id=cells.get("lesion_id") or None,
        patient_ref=cells.get("patient_ref") or None,
        age=_age(cells.get("age", "")),
        sex=cells.get("sex") or None,
        site=cells.get("site") or None,
    )


def _age(cell: str) -> float | None:
    if not cell:
        return None
    try:
        age = float(cell)
    except ValueError:
        age = float("nan")
    if not _AGES[0] <= age <= _AGES[1]:
        raise _RowError("age is not a number of years from 0 to 130")
    return age


def _relative(cell: str, roots: Sequence[str]) -> str:
    """The path as the database keeps it; one that leads out of the root stays as it is, for the worker to refuse."""
    path = os.path.normpath(cell)
    if os.path.isabs(path):  # noqa: PTH117
        root = next((root for root in roots if os.path.commonpath((path, root)) == root), None)
        path = os.path.relpath(path, root) if root is not None else path
    return path_to_text(path)


def _is_too_long(path: str) -> bool:
    return len(path.encode()) > _LONGEST_PATH_BYTES


def _seen(root: Path, path: str) -> NewImage:
    if len(path) > _LONGEST["path"] or _is_too_long(path):
        raise ManifestError(
            f"A path under {root} has {len(path)} characters and {len(path.encode()):,} bytes; the longest that is "
            f"taken in has {_LONGEST['path']} and {_LONGEST_PATH_BYTES:,}. Submit a folder further down."
        )
    return _with_sizes(root, NewImage(path=path, size_bytes=None, modified_ns=None))


def _with_sizes(root: Path, image: NewImage) -> NewImage:
    """Note size and time of modification, by which a worker sees that a file was changed since."""
    try:
        found = os.stat(os.path.join(root, text_to_path(image.path)))  # noqa: PTH116, PTH118
    except (OSError, ValueError):
        return image
    return replace(image, size_bytes=found.st_size, modified_ns=noted_ns(found))
