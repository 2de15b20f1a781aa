"""The outcomes of a job as JSON Lines: one object for each image, with the names of the CSV's columns."""

import json
from collections.abc import Iterable
from typing import TextIO

from db.worklist import OutcomeRow
from worker.output.rows import COLUMNS, RANK, CountedRows, Written


def write_jsonl(rows: Iterable[OutcomeRow], file: TextIO, *, ranked: bool = False, cancelled: bool = False) -> Written:
    """Write outcomes as JSON Lines. ``reused`` is a boolean, ``class_probabilities`` an object.

    Args:
        rows: in the order to write.
        file: opened for text.
        ranked: whether ``rank`` counts the scored images from 1.
        cancelled: whether the job was cancelled, so that a human must look at waiting images.
    """
    counted = CountedRows(rows, cancelled=cancelled)
    for rank, row, cells in counted:
        found = dict(zip(COLUMNS, cells, strict=True))
        found |= {"reused": row.reused, "class_probabilities": row.class_probabilities}
        file.write(json.dumps({RANK: rank, **found} if ranked else found, ensure_ascii=False))
        file.write("\n")
    return counted.written()
