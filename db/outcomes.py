"""Outcomes of images, written by workers under a lease; and inferences of earlier jobs that can be reused."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, select, union_all, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from db.models import Image, Prediction
from db.status import FailureCode, ImageStatus, QualityNote, TriageFlag, UngradableReason
from db.types import db_now

#: Longest reason that is kept, in characters.
REASON_LENGTH = 500
#: Columns of a prediction that hold an `Appearance`.
_APPEARANCE = ("contrast", "sharpness", "ood_score", "quality_notes", "evidence")


@dataclass(frozen=True, kw_only=True)
class Appearance:
    """The measures of a scored image.

    Args:
        contrast: of the quality gate.
        sharpness: of the quality gate.
        ood_score: distance or score of the out-of-distribution gate. None where the bundle has none.
        notes: what is unusual about it.
        evidence: map of one byte a place, row by row; empty where nothing speaks for melanoma. None: not made.
    """

    contrast: float | None = None
    sharpness: float | None = None
    ood_score: float | None = None
    notes: Sequence[QualityNote] = ()
    evidence: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A prediction to record."""

    image_id: int
    image_sha256: str
    raw_probability: float
    probability: float
    flag: TriageFlag
    #: Of any malignant class, and of each class by name, before calibration. None for a bundle with two classes.
    malignant_probability: float | None = None
    class_probabilities: Mapping[str, float] | None = None
    #: The engine that inferred it for an earlier image with the same bytes. None when it was inferred now.
    reused_from: str | None = None
    #: Version of the code that made pixels of the bytes.
    reader: int = 1
    appearance: Appearance = Appearance()


@dataclass(frozen=True, kw_only=True)
class StoredInference:
    """The network's output for an earlier image with the same bytes and the same bundle."""

    raw_probability: float
    engine: str
    class_probabilities: Mapping[str, float] | None = None
    #: Version of the code that made pixels of the bytes then.
    reader: int = 1
    appearance: Appearance = Appearance()


@dataclass(frozen=True, kw_only=True)
class Ungradable:
    """An image that could be read but not scored."""

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


def write_outcomes(
    connection: Connection, outcomes: Sequence[Outcome], *, job_id: int, bundle_id: int, engine: str
) -> None:
    """Record outcomes, in the transaction that has just renewed the lease.

    Args:
        outcomes: one per image.
        job_id: the job of these images.
        bundle_id: the bundle that scored.
        engine: the engine that scored.
    """
    scored = [outcome for outcome in outcomes if isinstance(outcome, Scored)]
    if scored:
        _upsert(connection, scored, job_id, bundle_id, engine)
        connection.execute(
            update(Image)
            .where(Image.id.in_([outcome.image_id for outcome in scored]))
            .values(
                status=ImageStatus.SCORED, failure_code=None, ungradable_reason=None, reason=None, completed_at=db_now()
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
                completed_at=db_now(),
            )
        )


def _upsert(connection: Connection, scored: Sequence[Scored], job_id: int, bundle_id: int, engine: str) -> None:
    dialect_insert = sqlite_insert if connection.dialect.name == "sqlite" else postgresql_insert
    statement = dialect_insert(Prediction).values(scored_at=db_now())
    values = {
        name: statement.excluded[name]
        for name in (
            "image_sha256",
            "bundle_id",
            "engine",
            "reused",
            "reader",
            "raw_probability",
            "probability",
            "flag",
            "malignant_probability",
            "class_probabilities",
            *_APPEARANCE,
            "scored_at",
        )
    }
    connection.execute(
        statement.on_conflict_do_update(index_elements=["image_id"], set_=values),
        [
            {
                "image_id": outcome.image_id,
                "job_id": job_id,
                "image_sha256": outcome.image_sha256,
                "bundle_id": bundle_id,
                "engine": outcome.reused_from or engine,
                "reused": outcome.reused_from is not None,
                "reader": outcome.reader,
                "raw_probability": outcome.raw_probability,
                "probability": outcome.probability,
                "flag": outcome.flag,
                "malignant_probability": outcome.malignant_probability,
                "class_probabilities": outcome.class_probabilities,
                "contrast": outcome.appearance.contrast,
                "sharpness": outcome.appearance.sharpness,
                "ood_score": outcome.appearance.ood_score,
                "quality_notes": quality_notes_to_text(outcome.appearance.notes),
                "evidence": outcome.appearance.evidence,
            }
            for outcome in scored
        ],
    )


def stored_inferences(connection: Connection, bundle_id: int, digests: Sequence[str]) -> dict[str, StoredInference]:
    """Find earlier inferences, by any job, for images with these bytes and this bundle.

    Args:
        bundle_id: predictions of other bundles do not count.
        digests: SHA-256 of the images of a batch in hexadecimal.

    Returns:
        Inference by digest, for those digests that are known.
    """
    # The newest of each, so that the answer is always the same. The index gives it without reading the other copies.
    if not digests:
        return {}
    same = (Prediction.image_sha256 == digest for digest in digests)
    newest = union_all(
        *(select(func.max(Prediction.id)).where(each, Prediction.bundle_id == bundle_id) for each in same)
    )
    rows = connection.execute(
        select(
            Prediction.image_sha256,
            Prediction.raw_probability,
            Prediction.engine,
            Prediction.class_probabilities,
            Prediction.reader,
            *(getattr(Prediction, name) for name in _APPEARANCE),
        ).where(Prediction.id.in_(newest))
    )
    return {
        row.image_sha256: StoredInference(
            raw_probability=row.raw_probability,
            engine=row.engine,
            class_probabilities=row.class_probabilities,
            reader=row.reader,
            appearance=Appearance(
                contrast=row.contrast,
                sharpness=row.sharpness,
                ood_score=row.ood_score,
                notes=quality_notes_of_text(row.quality_notes),
                evidence=row.evidence,
            ),
        )
        for row in rows
    }


def quality_notes_to_text(notes: Sequence[QualityNote]) -> str | None:
    """Notes as a column holds them. None without notes."""
    return " ".join(notes) or None


def quality_notes_of_text(text: str | None) -> tuple[QualityNote, ...]:
    """The notes of a column."""
    return tuple(QualityNote(word) for word in (text or "").split())
