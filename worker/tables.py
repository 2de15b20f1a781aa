"""Tables in text files: whether a file is one, and which delimiter separates its cells."""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from worker.regular_files import open_regular

#: Delimiters that are recognised. The first one is assumed for a header with a single column.
DELIMITERS = (",", ";", "\t")
#: First bytes of workbooks: .xlsx and .ods are ZIP files, .xls is a compound file.
_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
#: First bytes of a text in UTF-16. Half of its bytes are NUL.
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
#: Bytes read to recognise a file.
_HEAD_BYTES = 4_096
#: Most characters of a row. A manifest's row has some 2,000 at most.
MAX_ROW = 65_536


def describe_other_file(path: Path) -> str | None:
    """What a file is that cannot be a table in text: ``a workbook``. None for what may be a table.

    Raises:
        OSError: the file cannot be read, or is no regular file.
    """
    with open_regular(path) as file:
        head = file.read(_HEAD_BYTES)
    if head.startswith(_UTF_16):
        # It may be a table. The reader reports the encoding.
        return None
    if head.startswith(_WORKBOOKS):
        return "a workbook"
    if head[128:132] == b"DICM":
        return "a DICOM file"
    # A NUL further down is reported with the number of its line.
    return "a binary file" if b"\0" in head.partition(b"\n")[0] else None


def read_header(line: str) -> tuple[str, list[str]]:
    """Delimiter and column names of a header line; names are stripped and in lower case."""
    delimiter = max(DELIMITERS, key=line.count)
    return delimiter, [name.strip().lower() for name in next(csv.reader([line], delimiter=delimiter), [])]


def repeated_names(names: Sequence[str]) -> list[str]:
    """Column names that occur more than once, sorted."""
    return sorted(name for name, number in Counter(names).items() if number > 1)


class RowTooLongError(ValueError):
    """A row of a table has more than `MAX_ROW` characters. The text says which line it begins in."""


class TableRows:
    """The rows of a table in text, as lists of cells. Memory holds one row, however long the file's lines are.

    Args:
        file: positioned behind the header, with newlines as they are.
        delimiter: from `read_header`.
        header_line: number of the header's line; blank lines may precede it.

    Raises:
        RowTooLongError: on iteration.
        csv.Error: on iteration.
    """

    def __init__(self, file: TextIO, delimiter: str, header_line: int = 1) -> None:
        self._file = file
        self._characters = 0
        self._header_line = header_line
        #: Number of the line in which the row begins that is being read.
        self.begins = header_line + 1
        self._reader = csv.reader(self._lines(), delimiter=delimiter, strict=True)

    @property
    def line(self) -> int:
        """Number of the line in which the current row ends."""
        return self._reader.line_num + self._header_line

    def __iter__(self) -> Iterator[list[str]]:
        for cells in self._reader:
            self._characters, self.begins = 0, self.line + 1
            # An empty line is no row.
            if cells:
                yield cells

    def _lines(self) -> Iterator[str]:
        while line := self._file.readline(MAX_ROW + 1):
            # Lines of one row, too: a quoted cell may hold newlines.
            self._characters += len(line)
            if self._characters > MAX_ROW:
                raise RowTooLongError(f"the row that begins in line {self.begins} has more than {MAX_ROW:,} characters")
            yield line
