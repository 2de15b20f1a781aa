"""Tables in text: what is one, and how its cells are separated. Intake and the trainer share it."""

from pathlib import Path

#: What may stand between the cells of a manifest; the first where the header has a single column.
DELIMITERS = (",", ";", "\t")
#: How workbooks begin: .xlsx and .ods, and .xls.
_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
#: How a text in UTF-16 begins, half of whose bytes are NUL.
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
#: Bytes that are looked at to tell what a file is that should be a table.
_HEAD = 4_096


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
    if head[128:132] == b"DICM":
        return "a DICOM file"
    # Further down a NUL is a fault of its line, which is told by its number.
    return "no text" if b"\0" in head.partition(b"\n")[0] else None
