"""What an export says of an image, once for every format."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from db.status import ImageStatus, TriageFlag
from db.worklist import OutcomeRow

#: Reason code and reason of an image that was waiting when its job was cancelled.
CANCELLED = "cancelled"
_CANCELLED_REASON = "the job was cancelled before the image was scored"
#: Reason of an image that has no outcome yet.
_WAITING_REASON = "no outcome yet: the job was not finished when this was written"
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
    "quality_notes",
)


@dataclass(frozen=True, kw_only=True)
class Written:
    """Numbers of an export: lines, and images without an outcome or a score."""

    images: int
    waiting: int
    #: Images that are ungradable or failed, or were waiting when the job was cancelled.
    not_scored: int


class CountedRows:
    """Rows of an export on their way to a file, counted and ranked.

    Args:
        rows: in the order to write.
        cancelled: whether the job was cancelled, so that a human must look at waiting images.
    """

    def __init__(self, rows: Iterable[OutcomeRow], *, cancelled: bool) -> None:
        self._rows, self._cancelled = rows, cancelled
        self._counts = Counter[ImageStatus]()

    def __iter__(self) -> Iterator[tuple[int | None, OutcomeRow, tuple[object, ...]]]:
        """Rank of a scored image, the row, and its cells in the order of `COLUMNS`."""
        for row in self._rows:
            self._counts[row.status] += 1
            rank = self._counts[ImageStatus.SCORED] if row.status is ImageStatus.SCORED else None
            yield rank, row, cells_of(row, cancelled=self._cancelled)

    def written(self) -> Written:
        """Numbers so far."""
        waiting = self._counts[ImageStatus.WAITING]
        return Written(
            images=self._counts.total(),
            waiting=waiting,
            not_scored=self._counts[ImageStatus.UNGRADABLE]
            + self._counts[ImageStatus.FAILED]
            + (waiting if self._cancelled else 0),
        )


def cells_of(row: OutcomeRow, *, cancelled: bool) -> tuple[object, ...]:
    """The cells of an image, in the order of `COLUMNS`."""
    cancelled_waiting = cancelled and row.status is ImageStatus.WAITING
    # One flag for everything that a human must look at.
    not_scored = cancelled_waiting or row.status in (ImageStatus.UNGRADABLE, ImageStatus.FAILED)
    flag = TriageFlag.UNGRADABLE if not_scored else row.flag
    code = CANCELLED if cancelled_waiting else row.failure_code or row.ungradable_reason
    reason = _CANCELLED_REASON if cancelled_waiting else row.reason
    if row.status is ImageStatus.WAITING and not cancelled:
        reason = _WAITING_REASON
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
        row.quality_notes,
    )


def _by_class(probabilities: Mapping[str, float]) -> str:
    """``akiec=0.0103 bcc=0.0021 …``."""
    return " ".join(f"{name}={probability:.4f}" for name, probability in probabilities.items())
