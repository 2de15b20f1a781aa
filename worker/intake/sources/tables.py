"""The rows of a table: CSV, an Excel or OpenDocument workbook, or Parquet. One row is in memory, or one batch."""

import csv
import datetime as dt
import math
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from worker.errors import ManifestError
from worker.regular_files import open_regular
from worker.tables import MAX_ROW, RowTooLongError, TableRows, describe_other_file, read_header
from worker.terminal import printable

#: First bytes of Parquet, of the old workbooks of Excel, and of ZIP, which the newer ones are.
_PARQUET, _OLD_WORKBOOK, _ZIP = b"PAR1", b"\xd0\xcf\x11\xe0", b"PK\x03\x04"
#: First bytes of gzip, bzip2, xz and Zstandard.
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")
#: Members by which a ZIP is a workbook, of Excel and of OpenDocument.
_WORKBOOK_MEMBERS = ("xl/workbook.xml", "xl/workbook.bin", "content.xml")
#: Bytes of the largest workbook, unpacked: it is read at once. A million rows have some 400 MB.
_MAX_WORKBOOK_BYTES = 1024**3
#: Blank lines that may precede the header.
_MAX_BLANK_LINES = 100
#: First line by which Excel tells itself the delimiter.
_EXCEL_DELIMITER = re.compile(r"sep=(.)\s*$", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Table:
    """An opened table.

    Args:
        names: of its columns, stripped and in lower case.
        rows: number of the line (of a CSV file the one in which the row ends), and cells. Blank rows are left out.
        note: what a person should know of it. Empty where there is nothing.
    """

    names: Sequence[str]
    rows: Iterable[tuple[int, list[str]]]
    note: str = ""


def is_archive(path: Path) -> bool:
    """Whether a file is a ZIP or TAR archive, or a compressed one, and no workbook."""
    try:
        with open_regular(path) as file:
            head = file.read(512)
        if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            return not _is_workbook(path)
    except OSError:
        return False
    return head[257:262] == b"ustar" or head.startswith(_COMPRESSED)


@contextmanager
def open_table(path: Path) -> Iterator[Table]:
    """Open a table of any kind that is read. Errors of its rows are raised where they are read.

    Raises:
        ManifestError: it is no table, or a damaged one.
    """
    try:
        with open_regular(path) as file:
            head = file.read(4)
        if head == _PARQUET:
            with _parquet(path) as table:
                yield table
        elif head == _OLD_WORKBOOK or (head == _ZIP and _is_workbook(path)):
            yield _workbook(path)
        else:
            with _csv(path) as table:
                yield table
    except OSError as error:
        raise ManifestError(
            f"{path} cannot be read: {error.strerror}. Submit a folder of images or a manifest."
        ) from None


@contextmanager
def _csv(path: Path) -> Iterator[Table]:
    if (other := describe_other_file(path)) is not None:
        raise ManifestError(f"{path} is {other}, not a manifest. Save the table as CSV UTF-8.")
    rows: TableRows | None = None
    try:
        with open_regular(path) as data, TextIOWrapper(data, encoding="utf-8-sig", newline="") as file:
            delimiter, names, header_line = _csv_header(path, file)
            rows = TableRows(file, delimiter, header_line)
            yield Table(names=names, rows=((rows.line, cells) for cells in rows if any(map(str.strip, cells))))
    except UnicodeDecodeError:
        raise ManifestError(f"{path} is not UTF-8. Save it as CSV UTF-8.") from None
    except RowTooLongError as error:
        raise ManifestError(f"In {path}, {error}. Is a quotation mark missing, or is it another file?") from None
    except csv.Error as error:
        raise ManifestError(
            f"{path} is not a valid CSV file: {error}, in the row that begins in line "
            f"{rows.begins if rows else 1}. Save it again as CSV UTF-8."
        ) from None


def _csv_header(path: Path, file: TextIOWrapper) -> tuple[str, list[str], int]:
    """Delimiter, names, and the number of the header's line."""
    told: str | None = None
    for number in range(1, _MAX_BLANK_LINES + 2):
        line = file.readline(MAX_ROW + 1)
        if len(line) > MAX_ROW:
            raise ManifestError(
                f"The first line of {path} has more than {MAX_ROW:,} characters. A manifest has a header with the "
                "column path."
            )
        if not line:
            break
        if number == 1 and (found := _EXCEL_DELIMITER.match(line)):
            told = found[1]
            continue
        delimiter, names = read_header(line)
        if told is not None:
            delimiter = told
            names = [name.strip().lower() for name in next(csv.reader([line], delimiter=told), [])]
        if any(names):
            return delimiter, names, number
    raise ManifestError(f"{path} is empty. A manifest needs at least the column path.")


def _is_workbook(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name in archive.NameToInfo for name in _WORKBOOK_MEMBERS)
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return False


def _workbook(path: Path) -> Table:
    from python_calamine import CalamineError, CalamineWorkbook, SheetVisibleEnum

    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > _MAX_WORKBOOK_BYTES:
            raise ManifestError(f"{path} unpacks to {size:,} bytes. Save the table as CSV UTF-8.")
    try:
        book = CalamineWorkbook.from_path(str(path))
        visible = [sheet.name for sheet in book.sheets_metadata if sheet.visible is SheetVisibleEnum.Visible]
        filled = [sheet for name in visible if (sheet := book.get_sheet_by_name(name)).total_height]
        if not filled:
            raise ManifestError(f"{path} is empty. A manifest needs at least the column path.")
        if filled[0].merged_cell_ranges:
            raise ManifestError(
                f"{path} has merged cells, of which only the first one holds a value. Unmerge them and fill each row."
            )
        # Tables are small beside images.
        table = _numbered(path, ([_text_of(cell) for cell in row] for row in filled[0].iter_rows()))
    except (CalamineError, OSError, ValueError):
        raise ManifestError(f"{path} is a damaged or encrypted workbook. Save the table as CSV UTF-8.") from None
    if len(filled) == 1:
        return table
    others = ", ".join(printable(sheet.name) for sheet in filled[1:])
    return replace(table, note=f"WARNING: only the sheet {printable(filled[0].name)} is read, and not {others}.")


@contextmanager
def _parquet(path: Path) -> Iterator[Table]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise ManifestError(
            f"{path} is a Parquet file, and pyarrow is not installed: pip install 'dermq[parquet]'."
        ) from None
    try:
        with parquet.ParquetFile(path) as file:

            def rows() -> Iterator[list[str]]:
                yield list(file.schema_arrow.names)
                for batch in file.iter_batches(batch_size=8_192):
                    columns = [[_text_of(value) for value in column.to_pylist()] for column in batch.columns]
                    for row in zip(*columns, strict=True):
                        yield list(row)

            yield _numbered(path, rows())
    except (pa.ArrowException, OSError) as error:
        raise ManifestError(f"{path} is a damaged Parquet file ({type(error).__name__}). Write it again.") from None


def _numbered(path: Path, rows: Iterator[list[str]]) -> Table:
    """A table of rows whose first one with a cell is the header."""
    numbered = ((number, cells) for number, cells in enumerate(rows, 1) if any(map(str.strip, cells)))
    header = next(numbered, None)
    if header is None:
        raise ManifestError(f"{path} is empty. A manifest needs at least the column path.")
    return Table(names=[name.strip().lower() for name in header[1]], rows=numbered)


def _text_of(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float) and cell.is_integer():
        # Spreadsheets have no whole numbers: 45 is 45.0, and so is an identifier.
        return str(int(cell))
    if isinstance(cell, float) and math.isnan(cell):
        return ""
    if isinstance(cell, dt.date | dt.datetime):
        return cell.isoformat()
    return str(cell)
