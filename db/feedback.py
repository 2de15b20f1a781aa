"""Reviewers' findings: recorded version by version, and compared with the flags."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date

from sqlalchemy import Connection, func, insert, select

from db.models import Feedback, Image, Prediction
from db.status import ImageStatus, TriageFlag
from db.types import db_now

#: Values in one query.
_PART = 5_000


@dataclass(frozen=True, kw_only=True)
class NewFinding:
    """A reviewer's finding on an image. Without any text, the image was looked at."""

    image_id: int
    finding: str | None
    diagnosis: str | None
    comment: str | None
    reviewer: str
    reviewed_on: date | None = None


@dataclass(frozen=True, kw_only=True)
class ReviewedImage:
    """An image of a job with its newest diagnosis, or without one."""

    image_id: int
    lesion_id: str | None
    status: ImageStatus
    flag: TriageFlag | None
    probability: float | None
    diagnosis: str | None


def images_by_path(connection: Connection, job_id: int, paths: Sequence[str]) -> dict[str, int]:
    """Ids of a job's images by path."""
    found: dict[str, int] = {}
    for start in range(0, len(paths), _PART):
        part = paths[start : start + _PART]
        rows = connection.execute(select(Image.path, Image.id).where(Image.job_id == job_id, Image.path.in_(part)))
        found.update({row.path: row.id for row in rows})
    return found


def images_by_lesion(connection: Connection, job_id: int, lesions: Sequence[str]) -> dict[str, list[int]]:
    """Ids of a job's images by lesion."""
    found: dict[str, list[int]] = {}
    for start in range(0, len(lesions), _PART):
        part = lesions[start : start + _PART]
        rows = connection.execute(
            select(Image.lesion_id, Image.id)
            .where(Image.job_id == job_id, Image.lesion_id.in_(part))
            .order_by(Image.id)
        )
        for row in rows:
            found.setdefault(row.lesion_id, []).append(row.id)
    return found


def record_findings(connection: Connection, job_id: int, findings: Sequence[NewFinding]) -> int:
    """Record findings as new versions. One that says what the newest version says is left out.

    Returns:
        Number of new versions.
    """
    newest = _newest(connection, [finding.image_id for finding in findings])
    rows = []
    for finding in findings:
        said = (finding.finding, finding.diagnosis, finding.comment, finding.reviewer, finding.reviewed_on)
        version, before = newest.get(finding.image_id, (0, None))
        if before == said:
            continue
        newest[finding.image_id] = (version + 1, said)
        rows.append(
            {
                "job_id": job_id,
                "image_id": finding.image_id,
                "version": version + 1,
                "finding": finding.finding,
                "diagnosis": finding.diagnosis,
                "comment": finding.comment,
                "reviewer": finding.reviewer,
                "reviewed_on": finding.reviewed_on,
                "recorded_at": db_now(),
            }
        )
    for row in rows:
        # One by one: the time is an expression of the database.
        connection.execute(insert(Feedback).values(**row))
    return len(rows)


Said = tuple[str | None, str | None, str | None, str, date | None]


def _newest(connection: Connection, image_ids: Sequence[int]) -> dict[int, tuple[int, Said | None]]:
    found: dict[int, tuple[int, Said | None]] = {}
    for start in range(0, len(image_ids), _PART):
        part = image_ids[start : start + _PART]
        query = select(Feedback).where(Feedback.image_id.in_(part)).order_by(Feedback.version)
        for row in connection.execute(query):
            said = (row.finding, row.diagnosis, row.comment, row.reviewer, row.reviewed_on)
            found[row.image_id] = (row.version, said)
    return found


def reviewed_images(connection: Connection, job_id: int) -> Iterator[ReviewedImage]:
    """Every image of a job, with the diagnosis of its newest version."""
    newest = (
        select(Feedback.image_id, func.max(Feedback.version).label("version"))
        .where(Feedback.job_id == job_id)
        .group_by(Feedback.image_id)
        .subquery()
    )
    query = (
        select(
            Image.id.label("image_id"),
            Image.lesion_id,
            Image.status,
            Prediction.flag,
            Prediction.probability,
            Feedback.diagnosis,
        )
        .join(Prediction, Prediction.image_id == Image.id, isouter=True)
        .join(newest, newest.c.image_id == Image.id, isouter=True)
        .join(
            Feedback,
            (Feedback.image_id == newest.c.image_id) & (Feedback.version == newest.c.version),
            isouter=True,
        )
        .where(Image.job_id == job_id)
        .order_by(Image.id)
    )
    for row in connection.execute(query.execution_options(yield_per=_PART)).mappings():
        yield ReviewedImage(**row)
