"""How images ended: written by workers under a lease, read for export."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, case, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from db.clock import db_now
from db.models import Image, Job, ModelBundle, Prediction
from db.status import FailureCode, ImageStatus, TriageFlag, UngradableReason

#: Longest reason that is kept, in characters.
REASON_LENGTH = 500
#: Rows fetched at a time for an export.
_PAGE = 2_000


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A prediction to record."""

    image_id: int
    image_sha256: str
    raw_probability: float
    probability: float
    flag: TriageFlag
    #: Of any malignancy, and of each class by name, before calibration; None when the bundle has two classes only.
    malignant_probability: float | None = None
    class_probabilities: Mapping[str, float] | None = None
    #: The engine that inferred it, when that was for another image with the same bytes; None when it is fresh.
    reused_from: str | None = None


@dataclass(frozen=True, kw_only=True)
class Known:
    """What was inferred before for some bytes under a bundle."""

    raw_probability: float
    engine: str
    class_probabilities: Mapping[str, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Ungradable:
    """An image that could be read but not judged."""

    image_id: int
    reason: UngradableReason
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Failed:
    """An image that could not be read or scored."""

    image_id: int
    code: FailureCode
    sentence: str


Outcome = Scored | Ungradable | Failed


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
    ended_at: datetime | None


def write_outcomes(connection: Connection, outcomes: Sequence[Outcome], *, bundle_id: int, engine: str) -> None:
    """Record how images ended, in the transaction that has just renewed the lease.

    Args:
        outcomes: one per image.
        bundle_id: the bundle that scored.
        engine: the engine that scored.
    """
    scored = [outcome for outcome in outcomes if isinstance(outcome, Scored)]
    if scored:
        _upsert(connection, scored, bundle_id, engine)
        connection.execute(
            update(Image)
            .where(Image.id.in_([outcome.image_id for outcome in scored]))
            .values(
                status=ImageStatus.SCORED, failure_code=None, ungradable_reason=None, reason=None, ended_at=db_now()
            )
        )
    for outcome in outcomes:
        if isinstance(outcome, Scored):
            continue
        ungradable = isinstance(outcome, Ungradable)
        connection.execute(
            update(Image)
            .where(Image.id == outcome.image_id)
            .values(
                status=ImageStatus.UNGRADABLE if ungradable else ImageStatus.FAILED,
                failure_code=None if isinstance(outcome, Ungradable) else outcome.code,
                ungradable_reason=outcome.reason if isinstance(outcome, Ungradable) else None,
                reason=outcome.sentence[:REASON_LENGTH],
                ended_at=db_now(),
            )
        )


def _upsert(connection: Connection, scored: Sequence[Scored], bundle_id: int, engine: str) -> None:
    dialect_insert = sqlite_insert if connection.dialect.name == "sqlite" else postgresql_insert
    statement = dialect_insert(Prediction).values(scored_at=db_now())
    values = {
        name: statement.excluded[name]
        for name in (
            "image_sha256",
            "bundle_id",
            "engine",
            "reused",
            "raw_probability",
            "probability",
            "flag",
            "malignant_probability",
            "class_probabilities",
            "scored_at",
        )
    }
    connection.execute(
        statement.on_conflict_do_update(index_elements=["image_id"], set_=values),
        [
            {
                "image_id": outcome.image_id,
                "image_sha256": outcome.image_sha256,
                "bundle_id": bundle_id,
                "engine": outcome.reused_from or engine,
                "reused": outcome.reused_from is not None,
                "raw_probability": outcome.raw_probability,
                "probability": outcome.probability,
                "flag": outcome.flag,
                "malignant_probability": outcome.malignant_probability,
                "class_probabilities": outcome.class_probabilities,
            }
            for outcome in scored
        ],
    )


def known_predictions(connection: Connection, bundle_id: int, digests: Sequence[str]) -> dict[str, Known]:
    """What was inferred before, by any job, for images with these bytes under this bundle.

    Args:
        bundle_id: another bundle's predictions do not count.
        digests: SHA-256 of the images in hexadecimal.

    Returns:
        By digest, for those that are known.
    """
    rows = connection.execute(
        select(Prediction.image_sha256, Prediction.raw_probability, Prediction.engine, Prediction.class_probabilities)
        .where(Prediction.image_sha256.in_(digests), Prediction.bundle_id == bundle_id)
        # Of several, from other engines or versions, the newest: always the same one.
        .order_by(Prediction.id)
    )
    return {
        row.image_sha256: Known(
            raw_probability=row.raw_probability, engine=row.engine, class_probabilities=row.class_probabilities
        )
        for row in rows
    }


def outcomes_by_image(connection: Connection, job_id: int) -> Iterator[OutcomeRow]:
    """Every image of a job in the order of submission."""
    return _streamed(connection, _outcomes().where(Image.job_id == job_id).order_by(Image.id))


def outcomes_ranked(connection: Connection, job_id: int) -> Iterator[OutcomeRow]:
    """Every image of a job: first what nobody has judged, then by calibrated probability, the highest first."""
    scored = case((Image.status == ImageStatus.SCORED, 1), else_=0)
    order = (scored, Image.status, Prediction.probability.desc(), Image.id)
    return _streamed(connection, _outcomes().where(Image.job_id == job_id).order_by(*order))


def _streamed(connection: Connection, outcomes: Select[*tuple[Any, ...]]) -> Iterator[OutcomeRow]:
    """One query, which the database hands out page by page: a job of any size takes the memory of a page.

    A query for each page would have to find its beginning again, in a time that grows with the job.
    """
    for row in connection.execute(outcomes.execution_options(yield_per=_PAGE)).mappings():
        yield OutcomeRow(**row)


def worst_first(connection: Connection, job_id: int, limit: int) -> list[OutcomeRow]:
    """The scored images with the highest calibrated probability."""
    rows = connection.execute(
        _outcomes()
        .where(Image.job_id == job_id, Image.status == ImageStatus.SCORED)
        .order_by(Prediction.probability.desc(), Image.id)
        .limit(limit)
    ).mappings()
    return [OutcomeRow(**row) for row in rows]


def not_judged(connection: Connection, job_id: int, limit: int) -> list[OutcomeRow]:
    """Images that failed or are ungradable, for a human to look at."""
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
            Image.ended_at,
        )
        .join(Job, Job.id == Image.job_id)
        .join(ModelBundle, ModelBundle.id == Job.bundle_id)
        .outerjoin(Prediction, Prediction.image_id == Image.id)
    )
