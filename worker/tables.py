"""Tables in text files: whether a file is one, and which delimiter separates its cells."""

import csv
from pathlib import Path

from worker.regular_files import open_regular

#: Delimiters that are recognised. The first one is assumed for a header with a single column.
DELIMITERS = (",", ";", "\t")
#: First bytes of workbooks: .xlsx and .ods are ZIP files, .xls is a compound file.
_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
#: First bytes of a text in UTF-16. Half of its bytes are NUL.
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
#: Bytes read to recognise a file.
_HEAD_BYTES = 4_096


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
