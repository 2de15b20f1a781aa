"""A job's outcomes as CSV, one line per image."""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TextIO

from db.predictions import OutcomeRow
from db.status import ImageStatus, TriageFlag

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
#: A cell that begins with one of these is a formula to a spreadsheet program; file names come from outside.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, kw_only=True)
class Written:
    """What an export holds: a line for each image, and how many of those have no outcome yet."""

    images: int
    waiting: int


def write_csv(rows: Iterable[OutcomeRow], file: TextIO) -> Written:
    """Write outcomes as CSV with a header.

    Args:
        rows: in the order wanted.
        file: opened for text with ``newline=""``.

    Returns:
        Lines written, without the header, and how many of them are of images that wait.
    """
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    images = waiting = 0
    for row in rows:
        writer.writerow(_cells(row))
        images += 1
        waiting += row.status is ImageStatus.WAITING
    return Written(images=images, waiting=waiting)


def _cells(row: OutcomeRow) -> tuple[object, ...]:
    # What was not scored goes to a human too, and is found under one flag.
    not_judged = row.status in (ImageStatus.UNGRADABLE, ImageStatus.FAILED)
    flag = TriageFlag.UNGRADABLE if not_judged else row.flag
    return (
        _text(row.path),
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
        _text(row.lesion_id),
        row.failure_code or row.ungradable_reason,
        row.reason,
    )


def _by_class(probabilities: Mapping[str, float]) -> str:
    """``akiec=0.0103 bcc=0.0021 …``."""
    return " ".join(f"{name}={probability:.4f}" for name, probability in probabilities.items())


def _text(value: str | None) -> str | None:
    """Text from outside, with a quote before what a spreadsheet would run."""
    # A bare carriage return ends a line for some readers, and Python's writer does not quote it before 3.13.
    value = value.replace("\r", "\\r") if value is not None else None
    return f"'{value}" if value is not None and value.startswith(_FORMULA_STARTS) else value
