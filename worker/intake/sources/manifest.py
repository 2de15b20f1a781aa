"""A CSV manifest: checked from beginning to end, then streamed row by row."""

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from db.submission import NewImage
from worker.errors import ManifestError
from worker.images.formats import IMAGE_SUFFIXES
from worker.images.read import path_to_text
from worker.intake.sources.base import MAX_LENGTHS, MAX_PATH_BYTES, is_too_long, with_file_times
from worker.tables import DELIMITERS, no_table

#: Columns of a manifest that are taken in.
MANIFEST_COLUMNS = ("path", "lesion_id", "patient_ref", "age", "sex", "site")
#: Letters that are shown of a column's name, and names of unknown columns.
_SHOWN_LETTERS, _SHOWN_COLUMNS = 40, 5
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
    return (with_file_times(root, image) for image in _rows(manifest, root, _Faults()))


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
    delimiter = max(DELIMITERS, key=header.count)
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


def _row(row: dict[str | None, str | list[str] | None], roots: Sequence[str]) -> NewImage:
    if None in row or None in row.values():
        raise _RowError("more or fewer cells than the header has columns")
    cells = {str(name): str(value).strip() for name, value in row.items()}
    for name, longest in MAX_LENGTHS.items():
        if len(cells.get(name, "")) > longest or "\0" in cells.get(name, ""):
            raise _RowError(f"{name} is longer than {longest} characters or holds a NUL")
    if not cells["path"]:
        raise _RowError("path is empty")
    path = _relative(cells["path"], roots)
    if is_too_long(path):
        raise _RowError(f"path is longer than {MAX_PATH_BYTES:,} bytes")
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
