"""Measures of scored images, sampled for drift: what a look costs does not grow with the job."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, func, select

from db.models import Image, Prediction
from db.status import ImageStatus

#: Ids in one query.
_PART = 1_000


@dataclass(frozen=True, kw_only=True)
class MeasuredImage:
    """What was measured of a scored image. None in rows from before it was recorded."""

    path: str
    probability: float
    contrast: float | None
    sharpness: float | None
    ood_score: float | None


def sample_of_job(connection: Connection, job_id: int, most: int) -> list[MeasuredImage]:
    """Scored images of a job, at most ``most``, spread evenly over the order of submission."""
    # With the status, so that an index tells both ends.
    ends = select(func.min(Image.id), func.max(Image.id))
    first, last = connection.execute(ends.where(Image.job_id == job_id, Image.status == ImageStatus.SCORED)).one()
    if first is None:
        return []
    ids = range(first, last + 1, -(-(last - first + 1) // most))
    found: list[MeasuredImage] = []
    for start in range(0, len(ids), _PART):
        part = list(ids[start : start + _PART])
        query = _measures().where(Image.id.in_(part), Image.job_id == job_id, Image.status == ImageStatus.SCORED)
        found += [MeasuredImage(**row) for row in connection.execute(query).mappings()]
    return found[:most]


def newest_of_bundle(connection: Connection, bundle_id: int, most: int) -> list[MeasuredImage]:
    """The images that were scored last, of those of a bundle, whatever their job.

    Args:
        bundle_id: predictions of other bundles do not count.
        most: predictions that are looked at.
    """
    newest: Sequence[int] = connection.scalars(select(Prediction.id).order_by(Prediction.id.desc()).limit(most)).all()
    found: list[MeasuredImage] = []
    for start in range(0, len(newest), _PART):
        part = newest[start : start + _PART]
        query = _measures().where(Prediction.id.in_(part), Prediction.bundle_id == bundle_id)
        found += [MeasuredImage(**row) for row in connection.execute(query).mappings()]
    return found


def _measures() -> Select[*tuple[Any, ...]]:
    return select(
        Image.path, Prediction.probability, Prediction.contrast, Prediction.sharpness, Prediction.ood_score
    ).join(Prediction, Prediction.image_id == Image.id)
