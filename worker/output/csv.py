"""The outcomes of a job as CSV, one line per image."""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TextIO

from db.status import ImageStatus, TriageFlag
from db.worklist import OutcomeRow
from worker.terminal import printable

#: Reason code and reason of an image that was waiting when its job was cancelled.
CANCELLED = "cancelled"
_CANCELLED_REASON = "the job was cancelled before the image was scored"
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
#: Where a spreadsheet program would see a formula (OWASP, "CSV Injection"): at the start of a cell, or behind a
#: character that another program or locale takes for the end of a cell. The wide characters are of East Asian
#: keyboards.
_FORMULA = re.compile(r"(^|[,;\t|\n])(?=[ \"]*[=+\-@\t＝＋－＠])")  # noqa: RUF001


@dataclass(frozen=True, kw_only=True)
class Written:
    """Numbers of an export: lines, and images without an outcome or a score."""

    images: int
    waiting: int
    #: Images that are ungradable or failed, or were waiting when the job was cancelled.
    not_scored: int


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
    counts = Counter[ImageStatus]()
    for row in rows:
        counts[row.status] += 1
        rank = [counts[ImageStatus.SCORED] if row.status is ImageStatus.SCORED else None] if ranked else []
        cells = map(_safe, [*rank, *_cells(row, cancelled=cancelled)])
        writer.writerow(printable(cell) if terminal and isinstance(cell, str) else cell for cell in cells)
    return Written(
        images=counts.total(),
        waiting=counts[ImageStatus.WAITING],
        not_scored=counts[ImageStatus.UNGRADABLE]
        + counts[ImageStatus.FAILED]
        + (counts[ImageStatus.WAITING] if cancelled else 0),
    )


def _cells(row: OutcomeRow, *, cancelled: bool) -> tuple[object, ...]:
    cancelled_waiting = cancelled and row.status is ImageStatus.WAITING
    # One flag for everything that a human must look at.
    not_scored = cancelled_waiting or row.status in (ImageStatus.UNGRADABLE, ImageStatus.FAILED)
    flag = TriageFlag.UNGRADABLE if not_scored else row.flag
    code = CANCELLED if cancelled_waiting else row.failure_code or row.ungradable_reason
    reason = _CANCELLED_REASON if cancelled_waiting else row.reason
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
    """Put a quote before everything that a spreadsheet would run. Numbers stay numbers."""
    if not isinstance(cell, str):
        return cell
    # Some readers end a line at a bare carriage return, and Python's writer quotes it only from 3.13 on.
    return _FORMULA.sub(r"\1'", cell.replace("\r", "\\r"))
