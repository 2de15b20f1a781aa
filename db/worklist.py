"""The outcomes of a job's images, read for exports, worklists and summaries."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, literal, select, tuple_

from db.models import Image, Job, ModelBundle, Prediction
from db.status import FailureCode, ImageStatus, TriageFlag, UngradableReason

#: Statuses of images with an outcome and without a score, in their order on a worklist.
UNSCORED = (ImageStatus.FAILED, ImageStatus.UNGRADABLE)
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
    #: See `db.models.Prediction.quality_notes`.
    quality_notes: str | None
    completed_at: datetime | None
    site: str | None
    #: Of an image that came as DICOM.
    study_uid: str | None
    series_uid: str | None
    instance_uid: str | None


def outcomes_by_image(connection: Connection, job_id: int) -> Iterator[OutcomeRow]:
    """Every image of a job in the order of submission."""
    return _streamed(connection, _outcomes().where(Image.job_id == job_id).order_by(Image.id))


def outcomes_after(connection: Connection, job_id: int, image_id: int, limit: int) -> list[OutcomeRow]:
    """The images of a job that follow one in the order of submission, at most ``limit``: for what takes long."""
    query = _outcomes().where(Image.job_id == job_id, Image.id > image_id).order_by(Image.id).limit(limit)
    return [OutcomeRow(**row) for row in connection.execute(query).mappings()]


def outcomes_ranked(connection: Connection, job_id: int, *, cancelled: bool = False) -> Iterator[OutcomeRow]:
    """Every image of a job: images without a score first, then by calibrated probability, highest first.

    Each query is in the order of an index, so nothing is sorted.

    Args:
        job_id: the job.
        cancelled: whether waiting images will never be scored: then they come first. Otherwise they come last.
    """
    waiting = (ImageStatus.WAITING,)
    for status in (*UNSCORED, *(waiting if cancelled else ())):
        yield from _streamed(connection, _of_status(job_id, status))
    yield from _streamed(connection, _scored(job_id))
    if not cancelled:
        yield from _streamed(connection, _of_status(job_id, ImageStatus.WAITING))


def _of_status(job_id: int, status: ImageStatus) -> Select[*tuple[Any, ...]]:
    return _outcomes().where(Image.job_id == job_id, Image.status == status).order_by(Image.id)


def _streamed(connection: Connection, outcomes: Select[*tuple[Any, ...]]) -> Iterator[OutcomeRow]:
    """Run one query and fetch it page by page, so that memory does not grow with the job."""
    for row in connection.execute(outcomes.execution_options(yield_per=_PAGE)).mappings():
        yield OutcomeRow(**row)


def worklist_page(
    connection: Connection, job_id: int, limit: int, *, after: OutcomeRow | None = None
) -> list[OutcomeRow]:
    """The scored images with the highest calibrated probability, or those that follow.

    Args:
        job_id: the job.
        limit: most images.
        after: the last image of the page before. It is sought in the index, not counted to.
    """
    query = _scored(job_id).limit(limit)
    if after is not None:
        position = tuple_(Prediction.probability, Prediction.image_id)
        query = query.where(position < tuple_(literal(after.probability), literal(after.image_id)))
    return [OutcomeRow(**row) for row in connection.execute(query).mappings()]


def unscored_page(
    connection: Connection, job_id: int, limit: int, *, after: OutcomeRow | None = None
) -> list[OutcomeRow]:
    """The images of a job that failed, then those that are ungradable, or those that follow.

    Args:
        job_id: the job.
        limit: most images.
        after: the last image of the page before.
    """
    found: list[OutcomeRow] = []
    statuses = UNSCORED if after is None else UNSCORED[UNSCORED.index(after.status) :]
    for status in statuses:
        query = _outcomes().where(Image.job_id == job_id, Image.status == status).order_by(Image.id)
        if after is not None and status is after.status:
            query = query.where(Image.id > after.image_id)
        rows = connection.execute(query.limit(limit - len(found))).mappings()
        found += [OutcomeRow(**row) for row in rows]
    return found


def _scored(job_id: int) -> Select[*tuple[Any, ...]]:
    """The scored images of a job, highest probability first. Equal ones: the last submitted first."""
    order = (Prediction.probability.desc(), Prediction.image_id.desc())
    # Not an outer join, so that the planner may begin with the predictions.
    return (
        _outcomes(outer=False).where(Prediction.job_id == job_id, Image.status == ImageStatus.SCORED).order_by(*order)
    )


def _outcomes(*, outer: bool = True) -> Select[*tuple[Any, ...]]:
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
            Prediction.quality_notes,
            Image.completed_at,
            Image.site,
            Image.study_uid,
            Image.series_uid,
            Image.instance_uid,
        )
        .join(Job, Job.id == Image.job_id)
        .join(ModelBundle, ModelBundle.id == Job.bundle_id)
        .join(Prediction, Prediction.image_id == Image.id, isouter=outer)
    )


def evidence_of(connection: Connection, image_ids: Sequence[int]) -> dict[int, bytes]:
    """Evidence maps by image id, of the images that have one: see `db.models.Prediction.evidence`."""
    found: dict[int, bytes] = {}
    for start in range(0, len(image_ids), _PAGE):
        part = image_ids[start : start + _PAGE]
        rows = connection.execute(
            select(Prediction.image_id, Prediction.evidence).where(
                Prediction.image_id.in_(part), Prediction.evidence.is_not(None)
            )
        )
        found.update({row.image_id: row.evidence for row in rows})
    return found


def references_of(connection: Connection, image_ids: Sequence[int]) -> dict[int, str]:
    """Patient references by image id, of the images that have one."""
    found: dict[int, str] = {}
    for start in range(0, len(image_ids), _PAGE):
        part = image_ids[start : start + _PAGE]
        rows = connection.execute(
            select(Image.id, Image.patient_ref).where(Image.id.in_(part), Image.patient_ref.is_not(None))
        )
        found.update({row.id: row.patient_ref for row in rows})
    return found
