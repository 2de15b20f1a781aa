"""Champion and challenger: a second bundle scores a share of a job's images in the shadow, and both are compared."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from db.status import FailureCode, TriageFlag
from db.worklist import OutcomeRow
from worker.errors import ImageFaultError
from worker.images.read_any import Reader
from worker.inference.quality_gate import Measured
from worker.inference.triage import triage_flag
from worker.scoring.loaded_model import LoadedModel


@dataclass(kw_only=True)
class Challenge:
    """What both bundles say of the same images.

    Args:
        flags: images by the champion's and the challenger's flag; of an image without a score ``ungradable``.
        champion: calibrated probabilities of the images that both scored.
        challenger: likewise, in the same order.
        melanoma: by what `dermq feedback` recorded, of the same images; None where nothing is known.
        changed: images that cannot be read now, or are not those that were scored.
    """

    flags: Counter[tuple[TriageFlag, TriageFlag]] = field(default_factory=Counter)
    champion: list[float] = field(default_factory=list)
    challenger: list[float] = field(default_factory=list)
    melanoma: list[bool | None] = field(default_factory=list)
    changed: int = 0

    @property
    def rank_correlation(self) -> float | None:
        """Spearman's, of the two orders. None of fewer than three images."""
        if len(self.champion) < 3:
            return None
        first, second = _ranks(self.champion), _ranks(self.challenger)
        if first.std() == 0 or second.std() == 0:
            return None
        return float(np.corrcoef(first, second)[0, 1])

    def area(self, of: Sequence[float]) -> float | None:
        """Area under the ROC curve against the diagnoses, by ranks. None without both kinds."""
        known = [place for place, melanoma in enumerate(self.melanoma) if melanoma is not None]
        labels = np.array([self.melanoma[place] for place in known], bool)
        if not labels.any() or labels.all():
            return None
        ranks = _ranks([of[place] for place in known])
        cases = int(labels.sum())
        return float((ranks[labels].sum() - cases * (cases + 1) / 2) / (cases * (len(known) - cases)))


def challenge(
    rows: Sequence[OutcomeRow],
    reader: Reader,
    model: LoadedModel,
    *,
    policy: str,
    max_bytes: int,
    diagnoses: Mapping[int, bool],
    progress: Callable[[int], None] = lambda done: None,
) -> Challenge:
    """Score images with the challenger. Nothing is stored, and no flag changes.

    Args:
        rows: images with an outcome of the champion that is no failure.
        reader: of the job's archive.
        model: the challenger.
        policy: of the job; the challenger flags by its own thresholds of it.
        max_bytes: size of the largest file that is read.
        diagnoses: by image id, whether a reviewer's diagnosis is melanoma.
        progress: called with the number of images that are done.

    Raises:
        BundleError: the challenger has no such policy.
        EngineError: its engine fails.
    """
    thresholds = model.bundle.thresholds(policy)
    found = Challenge()
    for number, row in enumerate(rows, 1):
        try:
            content = reader(row.path, size_bytes=None, mtime_ns=None, max_bytes=max_bytes)
            if row.image_sha256 not in (None, content.sha256):
                raise ImageFaultError(FailureCode.CHANGED_SINCE_SUBMISSION, "it is not the image that was scored")
            decoded = model.bundle.preprocessing.decode(content.data, content.frame)
        except (ImageFaultError, MemoryError):
            found.changed += 1
            continue
        probability = _probability(model, decoded.pixels, decoded.short_side)
        first = row.flag or TriageFlag.UNGRADABLE
        second = (
            TriageFlag.UNGRADABLE
            if probability is None
            else triage_flag(
                probability,
                threshold=thresholds.threshold,
                borderline_threshold=thresholds.borderline_threshold,
            )
        )
        found.flags[first, second] += 1
        if probability is not None and row.probability is not None:
            found.champion.append(row.probability)
            found.challenger.append(probability)
            found.melanoma.append(diagnoses.get(row.image_id))
        progress(number)
    return found


def _probability(model: LoadedModel, pixels: npt.NDArray[np.uint8], short_side: int) -> float | None:
    """Calibrated, or None where the challenger's gates refuse the image."""
    if model.gate.check_size(short_side) is not None:
        return None
    model_input = model.bundle.preprocessing(pixels)
    measured = model.gate.check(short_side, model_input)
    if not isinstance(measured, Measured):
        return None
    inferred = model.engine.infer(model_input[None], features=model.gate.detector is not None)
    if inferred.features is not None and not isinstance(
        model.gate.check_features(measured, inferred.features[0]), Measured
    ):
        return None
    return float(model.bundle.manifest.calibration.apply(inferred.probability)[0])


def _ranks(values: Sequence[float]) -> npt.NDArray[np.float64]:
    """Ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    ends = counts.cumsum()
    ranks: npt.NDArray[np.float64] = (ends - (counts - 1) / 2)[inverse]
    return ranks
