"""A CSV manifest as a source: checked from beginning to end, then streamed row by row."""

import csv
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import TextIOWrapper
from pathlib import Path

from db.submission import NewImage
from worker.errors import ManifestError
from worker.images.formats import IMAGE_SUFFIXES
from worker.images.read import path_to_text
from worker.intake.sources.base import MAX_LENGTHS, MAX_PATH_BYTES, is_too_long, size_and_time
from worker.regular_files import open_regular
from worker.tables import (
    MAX_ROW,
    RowTooLongError,
    TableRows,
    describe_other_file,
    read_header,
    repeated_names,
)
from worker.terminal import printable

#: Columns of a manifest.
MANIFEST_COLUMNS = ("path", "lesion_id", "patient_ref", "age", "sex", "site")
#: Characters of a column name, and unknown columns, that a message shows.
_SHOWN_CHARACTERS, _SHOWN_COLUMNS = 40, 5
#: Wrong lines that a message names.
_NAMED_LINES = 10
#: A relative path that is stored as it is: most are. The others take the way through `os.path.normpath`.
_PLAIN = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9_. -]*/)*[A-Za-z0-9_-][A-Za-z0-9_. -]*")
#: Ages in years outside this range are errors.
_AGES = (0.0, 130.0)


class _RowError(Exception):
    """A line of a manifest is wrong. The text says how."""


@dataclass(kw_only=True)
class _WrongLines:
    """The wrong lines of a manifest: the first ones in full, the others counted."""

    named: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, description: str) -> None:
        self.count += 1
        if self.count <= _NAMED_LINES:
            self.named.append(description)


def read_manifest(manifest: Path, root: Path) -> Iterator[NewImage]:
    """Check a CSV manifest from beginning to end, then stream its rows.

    Columns: ``path`` (relative to the root, or absolute), and optionally ``lesion_id``, ``patient_ref``, ``age`` in
    years, ``sex`` and ``site``. The delimiter is a comma, a semicolon or a tab, the encoding UTF-8.

    Args:
        manifest: the CSV file.
        root: folder that its paths are relative to.

    Returns:
        Iterator of one image per row, in order, repeated paths included.

    Raises:
        ManifestError: it cannot be read, has no column ``path``, has an unknown column, or a row is wrong.
    """
    if not root.is_dir():
        raise ManifestError(f"No folder at {root}. With --root, name the folder that the manifest's paths start from.")
    if manifest.suffix.lower() in IMAGE_SUFFIXES:
        raise ManifestError(f"{manifest} is an image. Submit the folder that holds it, or a CSV manifest.")
    try:
        other = describe_other_file(manifest)
    except OSError as error:
        raise _unreadable(manifest, error) from None
    if other is not None:
        raise ManifestError(f"{manifest} is {other}, not a CSV manifest. Save the table as CSV UTF-8.")
    wrong = _WrongLines()
    for _ in _rows(manifest, root, wrong, look=False):
        pass
    if wrong.count:
        rest = f" … and {wrong.count - _NAMED_LINES} more" if wrong.count > _NAMED_LINES else ""
        raise ManifestError(f"{manifest} has wrong lines: {'; '.join(wrong.named)}{rest}.")
    return _unchanged_rows(manifest, root)


def _unchanged_rows(manifest: Path, root: Path) -> Iterator[NewImage]:
    """The rows of a manifest that was checked, with the size and time of each file."""
    wrong = _WrongLines()
    yield from _rows(manifest, root, wrong, look=True)
    if wrong.count:
        raise ManifestError(f"{manifest} was changed while it was submitted: {wrong.named[0]}. Submit it again.")


def _unreadable(manifest: Path, error: OSError) -> ManifestError:
    return ManifestError(f"{manifest} cannot be read: {error.strerror}. Submit a folder of images or a CSV manifest.")


def _rows(manifest: Path, root: Path, wrong: _WrongLines, *, look: bool) -> Iterator[NewImage]:
    """Yield the images of the correct rows, and collect the others in ``wrong``.

    Args:
        manifest: the CSV file.
        root: folder that its paths are relative to.
        wrong: filled.
        look: whether to find size and modification time of each file.
    """
    rows: TableRows | None = None
    try:
        with open_regular(manifest) as data, TextIOWrapper(data, encoding="utf-8-sig", newline="") as file:
            header = file.readline(MAX_ROW + 1)
            if len(header) > MAX_ROW:
                raise ManifestError(
                    f"The first line of {manifest} has more than {MAX_ROW:,} characters. A manifest has the columns "
                    f"path, and optionally {', '.join(MANIFEST_COLUMNS[1:])}."
                )
            delimiter, names = _header(manifest, header)
            rows = TableRows(file, delimiter)
            row_of = _Row(names, root, look=look)
            for cells in rows:
                try:
                    yield row_of(cells)
                except _RowError as error:
                    # The number of the line, not its content, which may be a patient's.
                    wrong.add(f"line {rows.line}: {error}")
    except OSError as error:
        raise _unreadable(manifest, error) from None
    except UnicodeDecodeError as error:
        raise ManifestError(f"{manifest} is not UTF-8 (byte {error.start}). Save it as CSV UTF-8.") from None
    except RowTooLongError as error:
        raise ManifestError(f"In {manifest}, {error}. Is a quotation mark missing, or is it another file?") from None
    except csv.Error as error:
        raise ManifestError(
            f"{manifest} is not a valid CSV file: {error}, in the row that begins in line "
            f"{rows.begins if rows else 1}. Save it again as CSV UTF-8."
        ) from None


def _header(manifest: Path, line: str) -> tuple[str, list[str]]:
    """Delimiter and columns, checked."""
    delimiter, names = read_header(line)
    unknown = [name for name in names if name not in MANIFEST_COLUMNS]
    repeated = repeated_names(names)
    if "path" not in names or unknown or repeated:
        if not names:
            raise ManifestError(f"{manifest} is empty. A manifest needs at least the column path.")
        problems = [
            *(["the column path is missing"] if "path" not in names else []),
            *(f"{_shortened(name)!r} is unknown" for name in unknown[:_SHOWN_COLUMNS]),
            *([f"{len(unknown) - _SHOWN_COLUMNS} more are unknown"] if len(unknown) > _SHOWN_COLUMNS else []),
            *(f"{_shortened(name)!r} occurs twice" for name in repeated[:_SHOWN_COLUMNS]),
        ]
        raise ManifestError(
            f"{manifest} has the columns {_listed(names)}: {', '.join(problems)}. Allowed are path, and optionally "
            f"{', '.join(MANIFEST_COLUMNS[1:])}."
        )
    return delimiter, names


def _shortened(name: str) -> str:
    name = printable(name)
    return name if len(name) <= _SHOWN_CHARACTERS else f"{name[:_SHOWN_CHARACTERS]}…"


def _listed(names: Sequence[str]) -> str:
    # One more than a correct manifest can have.
    shown = len(MANIFEST_COLUMNS) + 1
    rest = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(map(_shortened, names[:shown])) + rest


class _Row:
    """Makes an image of a row's cells.

    Args:
        names: of the columns.
        root: folder that the paths are relative to.
        look: whether to find size and modification time of each file.
    """

    def __init__(self, names: Sequence[str], root: Path, *, look: bool) -> None:
        self._width = len(names)
        self._column = {name: number for number, name in enumerate(names)}
        self._longest = [(self._column[name], name, most) for name, most in MAX_LENGTHS.items() if name in self._column]
        self._root, self._look = root, look
        # An absolute path may begin with the root as given, or with its target when the root is a link.
        self._roots = (str(root), os.path.realpath(root))

    def __call__(self, cells: list[str]) -> NewImage:
        if len(cells) != self._width:
            raise _RowError("the number of cells differs from the number of columns")
        cells = [cell.strip() for cell in cells]
        for number, name, longest in self._longest:
            if len(cells[number]) > longest or "\0" in cells[number]:
                raise _RowError(f"{name} is longer than {longest} characters or contains a NUL")
        path = cells[self._column["path"]]
        if not path:
            raise _RowError("path is empty")
        if not _PLAIN.fullmatch(path):
            path = _relative(path, self._roots)
            if is_too_long(path):
                raise _RowError(f"path is longer than {MAX_PATH_BYTES:,} bytes")
        size_bytes, mtime_ns = size_and_time(self._root, path) if self._look else (None, None)
        return NewImage(
            path=path,
            size_bytes=size_bytes,
            mtime_ns=mtime_ns,
            lesion_id=self._cell(cells, "lesion_id"),
            patient_ref=self._cell(cells, "patient_ref"),
            age=_age(self._cell(cells, "age")),
            sex=self._cell(cells, "sex"),
            site=self._cell(cells, "site"),
        )

    def _cell(self, cells: list[str], name: str) -> str | None:
        number = self._column.get(name)
        return (cells[number] or None) if number is not None else None


def _age(cell: str | None) -> float | None:
    if cell is None:
        return None
    try:
        age = float(cell)
    except ValueError:
        age = float("nan")
    if not _AGES[0] <= age <= _AGES[1]:
        raise _RowError("age is not a number of years from 0 to 130")
    return age


def _relative(cell: str, roots: Sequence[str]) -> str:
    """The path as the database stores it. One that leads out of the root stays unchanged, and a worker refuses it."""
    path = os.path.normpath(cell)
    if os.path.isabs(path):  # noqa: PTH117
        root = next((root for root in roots if os.path.commonpath((path, root)) == root), None)
        path = os.path.relpath(path, root) if root is not None else path
    return path_to_text(path)
