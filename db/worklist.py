"""The outcomes of a job's images, read for exports, worklists and summaries."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, case, select

from db.models import Image, Job, ModelBundle, Prediction
from db.status import FailureCode, ImageStatus, TriageFlag, UngradableReason

#: Rows fetched at a time for an export.
_PAGE = 2_000


@dataclass(frozen=True, kw_only=True)
class OutcomeRow:
    """One line of an export."""

    image_id: int
    path: str
    status: ImageStatus
    flag: TriageFlag | None
    probability: float | None
    raw_probability: float | None
    malignant_probability: float | None
    class_probabilities: Mapping[str, float] | None
    threshold: float
    policy: str
    bundle_name: str
    bundle_version: str
    bundle_sha256: str
    engine: str | None
    reused: bool | None
    image_sha256: str | None
    lesion_id: str | None
    failure_code: FailureCode | None
    ungradable_reason: UngradableReason | None
    reason: str | None
    completed_at: datetime | None


def outcomes_by_image(connection: Connection, job_id: int) -> Iterator[OutcomeRow]:
    """Every image of a job in the order of submission."""
    return _streamed(connection, _outcomes().where(Image.job_id == job_id).order_by(Image.id))


def outcomes_ranked(connection: Connection, job_id: int) -> Iterator[OutcomeRow]:
    """Every image of a job: images without a score first, then by calibrated probability, highest first."""
    scored = case((Image.status == ImageStatus.SCORED, 1), else_=0)
    order = (scored, Image.status, Prediction.probability.desc(), Image.id)
    return _streamed(connection, _outcomes().where(Image.job_id == job_id).order_by(*order))


def _streamed(connection: Connection, outcomes: Select[*tuple[Any, ...]]) -> Iterator[OutcomeRow]:
    """Run one query and fetch it page by page, so that memory does not grow with the job."""
    for row in connection.execute(outcomes.execution_options(yield_per=_PAGE)).mappings():
        yield OutcomeRow(**row)


def most_suspicious(connection: Connection, job_id: int, limit: int) -> list[OutcomeRow]:
    """The scored images with the highest calibrated probability."""
    rows = connection.execute(
        _outcomes()
        .where(Image.job_id == job_id, Image.status == ImageStatus.SCORED)
        .order_by(Prediction.probability.desc(), Image.id)
        .limit(limit)
    ).mappings()
    return [OutcomeRow(**row) for row in rows]


def not_scored(connection: Connection, job_id: int, limit: int) -> list[OutcomeRow]:
    """Images that failed or are ungradable. A human must look at them."""
    rows = connection.execute(
        _outcomes()
        .where(Image.job_id == job_id, Image.status.in_((ImageStatus.FAILED, ImageStatus.UNGRADABLE)))
        .order_by(Image.status, Image.failure_code, Image.id)
        .limit(limit)
    ).mappings()
    return [OutcomeRow(**row) for row in rows]


def _outcomes() -> Select[*tuple[Any, ...]]:
    return (
        select(
            Image.id.label("image_id"),
            Image.path,
            Image.status,
            Prediction.flag,
            Prediction.probability,
            Prediction.raw_probability,
            Prediction.malignant_probability,
            Prediction.class_probabilities,
            Job.threshold,
            Job.policy,
            ModelBundle.name.label("bundle_name"),
            ModelBundle.version.label("bundle_version"),
            ModelBundle.sha256.label("bundle_sha256"),
            Prediction.engine,
            Prediction.reused,
            Prediction.image_sha256,
            Image.lesion_id,
            Image.failure_code,
            Image.ungradable_reason,
            Image.reason,
            Image.completed_at,
        )
        .join(Job, Job.id == Image.job_id)
        .join(ModelBundle, ModelBundle.id == Job.bundle_id)
        .outerjoin(Prediction, Prediction.image_id == Image.id)
    )
