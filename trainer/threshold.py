"""Where high risk begins."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_curve

from trainer.bootstrap import lesion_resamples

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """A threshold and what it gives: an image is called melanoma when its probability is at or above it."""

    threshold: float
    sensitivity: float
    specificity: float


def operating_point(labels: Labels, probabilities: Floats, threshold: float) -> OperatingPoint:
    """Sensitivity and specificity at a given threshold.

    Args:
        labels: (n,), 1 for melanoma and 0 for nevus; both must occur.
        probabilities: (n,).
        threshold: at or above which an image is called melanoma.

    Raises:
        ValueError: a class is missing.
    """
    _require_both_classes(labels)
    called = probabilities >= threshold
    return OperatingPoint(
        threshold=float(threshold),
        sensitivity=float(called[labels == 1].mean()),
        specificity=float((~called[labels == 0]).mean()),
    )


def youden_threshold(labels: Labels, probabilities: Floats) -> float:
    """The threshold with the greatest Youden's J = sensitivity + specificity - 1.

    Youden, "Index for rating diagnostic tests", Cancer 3:32 (1950). Where several thresholds share the greatest J, the
    lowest is taken: a missed melanoma is the harm that counts. The threshold lies halfway to the next lower
    probability, so that rounding between engines does not move the image that set it.

    Args:
        labels: (n,), 1 for melanoma and 0 for nevus; both must occur.
        probabilities: (n,).

    Returns:
        The threshold.

    Raises:
        ValueError: a class is missing.

    Example:
        >>> youden_threshold(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.3, 0.8]))
        0.2
    """
    _require_both_classes(labels)
    false_positive_rate, true_positive_rate, thresholds = roc_curve(labels, probabilities, drop_intermediate=False)
    j = true_positive_rate - false_positive_rate
    # Counts divided by counts: equal values of J can differ in the last bit.
    best = np.flatnonzero(j >= j.max() - 1e-12)[-1]
    chosen = float(thresholds[best])
    below = probabilities[probabilities < chosen]
    if not below.size:
        return chosen
    middle = (chosen + float(below.max())) / 2
    # Between neighbouring numbers there is no middle, and rounding may give the lower one.
    return middle if middle > below.max() else chosen


def youden_band(labels: Labels, probabilities: Floats, lesions: npt.NDArray[np.object_], *, seed: int) -> float:
    """Lower end of the threshold's uncertainty: the 5th percentile of Youden's threshold over resampled lesions.

    An image between it and the threshold is borderline: another validation set of the same size might well have put
    the threshold below it.

    Args:
        labels: (n,), 1 for melanoma and 0 for nevus.
        probabilities: (n,).
        lesions: (n,), lesion of each image.
        seed: of the resampling.

    Returns:
        A probability, at most the threshold on all data.
    """
    drawn = [
        youden_threshold(labels[rows], probabilities[rows]) for rows in lesion_resamples(lesions, labels, seed=seed)
    ]
    return min(float(np.percentile(drawn, 5)), youden_threshold(labels, probabilities))


def _require_both_classes(labels: Labels) -> None:
    melanomas = int((labels == 1).sum())
    if not 0 < melanomas < len(labels):
        raise ValueError(
            f"Received: {melanomas} melanomas among {len(labels)} images. "
            "Expected: at least one melanoma and one nevus."
        )
