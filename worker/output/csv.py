"""The outcomes of a job as CSV, one line per image: all that is known, or the worklist for people."""

import csv
from collections.abc import Iterable
from typing import TextIO

from db.worklist import OutcomeRow
from worker.output.rows import COLUMNS, RANK, CountedRows, Written
from worker.output.safe_cells import safe_cell
from worker.terminal import printable

#: Columns of the worklist for people. A lesion has one rank; what is not scored has none. The last three are theirs.
WORKLIST_COLUMNS = ("lesion_rank", "lesion_id", "path", "probability", "flag", "note", "reviewed", "finding", "comment")


def write_csv(
    rows: Iterable[OutcomeRow], file: TextIO, *, ranked: bool = False, cancelled: bool = False, terminal: bool = False
) -> Written:
    """Write outcomes as CSV with a header.

    Args:
        rows: in the order to write.
        file: opened for text with ``newline=""``.
        ranked: whether a first column counts the scored images from 1.
        cancelled: whether the job was cancelled, so that a human must look at waiting images.
        terminal: whether control characters are escaped, which a terminal would obey.

    Returns:
        Numbers of lines without the header.
    """
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([RANK, *COLUMNS] if ranked else COLUMNS)
    counted = CountedRows(rows, cancelled=cancelled)
    for rank, _, cells in counted:
        safe = map(safe_cell, [rank, *cells] if ranked else cells)
        writer.writerow(printable(cell) if terminal and isinstance(cell, str) else cell for cell in safe)
    return counted.written()


def write_worklist_csv(rows: Iterable[OutcomeRow], file: TextIO, *, cancelled: bool = False) -> Written:
    """Write the worklist for people: few columns, two digits, and room for what a reader finds.

    Args:
        rows: from `db.worklist.outcomes_ranked`.
        file: opened for text with ``newline=""``.
        cancelled: whether the job was cancelled.
    """
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(WORKLIST_COLUMNS)
    counted, ranks, cases = CountedRows(rows, cancelled=cancelled), dict[str, int](), 0
    for rank, row, cells in counted:
        case: int | None = None
        if rank is not None:
            # Images of a lesion share the rank of its most suspicious one.
            case = ranks.get(row.lesion_id) if row.lesion_id else None
            if case is None:
                cases += 1
                case = cases
                if row.lesion_id:
                    ranks[row.lesion_id] = case
        named = dict(zip(COLUMNS, cells, strict=True))
        probability = None if row.probability is None else f"{row.probability:.2f}"
        found = [case, row.lesion_id, row.path, probability, named["flag"], named["reason"], None, None, None]
        writer.writerow(map(safe_cell, found))
    return counted.written()
