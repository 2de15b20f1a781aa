"""A job's outcomes as CSV, one line per image."""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TextIO

from db.status import ImageStatus, TriageFlag
from db.worklist import OutcomeRow

#: Reason code, and reason, of an image that a cancelled job never came to: there is no other end to it.
CANCELLED = "cancelled"
_CANCELLED_REASON = "the job was cancelled before it was looked at"
#: First column of a ranked export.
RANK = "rank"
COLUMNS = (
    "path",
    "status",
    "flag",
    "probability",
    "raw_probability",
    "malignant_probability",
    "class_probabilities",
    "threshold",
    "policy",
    "bundle",
    "bundle_sha256",
    "engine",
    "reused",
    "image_sha256",
    "lesion_id",
    "reason_code",
    "reason",
)
#: Where a spreadsheet program would see a formula (OWASP, "CSV Injection"): at the beginning of a cell, or behind what
#: another program or another country's settings take for the end of one. The wide ones are of East Asian keyboards.
_FORMULA = re.compile(r"(^|[,;\t|\n])(?=[ \"]*[=+\-@\t＝＋－＠])")  # noqa: RUF001


@dataclass(frozen=True, kw_only=True)
class Written:
    """What an export holds: a line for each image, and how many of those have no outcome yet."""

    images: int
    waiting: int
    #: Images that are ungradable or failed, or that a cancelled job never came to.
    not_judged: int


def write_csv(rows: Iterable[OutcomeRow], file: TextIO, *, ranked: bool = False, cancelled: bool = False) -> Written:
    """Write outcomes as CSV with a header.

    Args:
        rows: in the order wanted.
        file: opened for text with ``newline=""``.
        ranked: whether a first column counts the scored ones from 1.
        cancelled: whether the job was, so that what waits is never looked at and goes to a human.

    Returns:
        Lines written, without the header, and how many of them are of images that wait.
    """
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([RANK, *COLUMNS] if ranked else COLUMNS)
    counts = Counter[ImageStatus]()
    for row in rows:
        counts[row.status] += 1
        rank = [counts[ImageStatus.SCORED] if row.status is ImageStatus.SCORED else None] if ranked else []
        writer.writerow(map(_safe, [*rank, *_cells(row, cancelled=cancelled)]))
    return Written(
        images=counts.total(),
        waiting=counts[ImageStatus.WAITING],
        not_judged=counts[ImageStatus.UNGRADABLE]
        + counts[ImageStatus.FAILED]
        + (counts[ImageStatus.WAITING] if cancelled else 0),
    )


def _cells(row: OutcomeRow, *, cancelled: bool) -> tuple[object, ...]:
    given_up = cancelled and row.status is ImageStatus.WAITING
    # What was not scored goes to a human too, and is found under one flag.
    not_judged = given_up or row.status in (ImageStatus.UNGRADABLE, ImageStatus.FAILED)
    flag = TriageFlag.UNGRADABLE if not_judged else row.flag
    code = CANCELLED if given_up else row.failure_code or row.ungradable_reason
    reason = _CANCELLED_REASON if given_up else row.reason
    return (
        row.path,
        row.status,
        flag,
        row.probability,
        row.raw_probability,
        row.malignant_probability,
        None if row.class_probabilities is None else _by_class(row.class_probabilities),
        row.threshold,
        row.policy,
        f"{row.bundle_name} {row.bundle_version}",
        row.bundle_sha256,
        row.engine,
        None if row.reused is None else ("yes" if row.reused else "no"),
        row.image_sha256,
        row.lesion_id,
        code,
        reason,
    )


def _by_class(probabilities: Mapping[str, float]) -> str:
    """``akiec=0.0103 bcc=0.0021 …``."""
    return " ".join(f"{name}={probability:.4f}" for name, probability in probabilities.items())


def _safe(cell: object) -> object:
    """A cell with a quote before whatever a spreadsheet would run; numbers stay numbers."""
    if not isinstance(cell, str):
        return cell
    # A bare carriage return ends a line for some readers, and Python's writer does not quote it before 3.13.
    return _FORMULA.sub(r"\1'", cell.replace("\r", "\\r"))
