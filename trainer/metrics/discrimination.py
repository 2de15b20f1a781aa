"""Discrimination: how well scores tell melanomas from nevi. The figures take weights, so that all resamples are
computed at once. With weights of one each figure equals scikit-learn's, which a test checks.
"""

import numpy as np
import numpy.typing as npt

from trainer.metrics.figures import PrecisionRecallCurve, RocCurve

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

#: Area under the ROC curve of random scores.
CHANCE = 0.5


def auroc(labels: Labels, scores: Floats, weights: Floats) -> Floats:
    """Area under the ROC curve: the chance that a melanoma scores above a nevus, ties counting half.

    Hanley & McNeil, "The meaning and use of the area under a receiver operating characteristic curve", Radiology
    143:29 (1982).

    Args:
        labels: (n,), 1 for melanoma and 0 for nevus.
        scores: (n,).
        weights: (resamples, n), how often each image counts.

    Returns:
        (resamples,); not a number where a class has no weight.
    """
    melanomas, nevi = _weights_by_score(labels, scores, weights)
    below = np.cumsum(nevi, axis=1) - nevi
    wins = np.sum(melanomas * (below + nevi / 2), axis=1)
    return _ratio(wins, melanomas.sum(axis=1) * nevi.sum(axis=1))


def average_precision(labels: Labels, scores: Floats, weights: Floats) -> Floats:
    """Area under the precision-recall curve as average precision: sum of precision times the gain in recall.

    Args:
        labels: (n,), 1 for melanoma and 0 for nevus.
        scores: (n,).
        weights: (resamples, n).

    Returns:
        (resamples,); not a number where melanomas have no weight.
    """
    melanomas, nevi = (part[:, ::-1] for part in _weights_by_score(labels, scores, weights))
    caught, called = np.cumsum(melanomas, axis=1), np.cumsum(melanomas + nevi, axis=1)
    precision = np.divide(caught, called, out=np.zeros_like(caught), where=called > 0)
    return _ratio(np.sum(precision * melanomas, axis=1), melanomas.sum(axis=1))


def specificity_at_sensitivity(labels: Labels, scores: Floats, weights: Floats, *, sensitivity: float) -> Floats:
    """Specificity at the highest threshold that reaches a sensitivity.

    The threshold is chosen on the same images that it is measured on, so this describes the ROC curve only. What a
    worker does is measured at the model's thresholds.

    Args:
        labels: (n,), 1 for melanoma and 0 for nevus.
        scores: (n,).
        weights: (resamples, n).
        sensitivity: to reach, above 0 and at most 1.

    Returns:
        (resamples,); not a number where a class has no weight.
    """
    melanomas, nevi = (part[:, ::-1] for part in _weights_by_score(labels, scores, weights))
    reached = np.cumsum(melanomas, axis=1) >= sensitivity * melanomas.sum(axis=1, keepdims=True) - 1e-9
    first = np.argmax(reached, axis=1)
    called = np.cumsum(nevi, axis=1)[np.arange(len(first)), first]
    specificity = 1 - _ratio(called, nevi.sum(axis=1))
    return np.where(melanomas.sum(axis=1) > 0, specificity, np.nan)


def share(flags: npt.NDArray[np.bool_], among: npt.NDArray[np.bool_], weights: Floats) -> Floats:
    """Share of flagged images among some: sensitivity among melanomas, 1 - specificity among nevi.

    Args:
        flags: (n,).
        among: (n,).
        weights: (resamples, n).

    Returns:
        (resamples,); not a number where those among which have no weight.
    """
    flagged: Floats = weights @ (flags & among).astype(np.float64)
    return _ratio(flagged, weights @ among.astype(np.float64))


def roc_points(labels: Labels, scores: Floats) -> RocCurve:
    """The ROC curve, from 0 to 1."""
    melanomas, nevi = (part[0, ::-1] for part in _weights_by_score(labels, scores, np.ones((1, len(labels)))))
    return RocCurve(
        false_positive_rate=(0.0, *(np.cumsum(nevi) / nevi.sum()).tolist()),
        sensitivity=(0.0, *(np.cumsum(melanomas) / melanomas.sum()).tolist()),
    )


def precision_recall_points(labels: Labels, scores: Floats) -> PrecisionRecallCurve:
    """The precision-recall curve: recall (sensitivity) from 0 to 1, and precision (PPV) at it."""
    melanomas, nevi = (part[0, ::-1] for part in _weights_by_score(labels, scores, np.ones((1, len(labels)))))
    caught = np.cumsum(melanomas)
    return PrecisionRecallCurve(
        recall=tuple((caught / melanomas.sum()).tolist()),
        precision=tuple((caught / np.cumsum(melanomas + nevi)).tolist()),
    )


def _weights_by_score(labels: Labels, scores: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Weight of melanomas and of nevi at each distinct score, from low to high: two of (resamples, scores)."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))
    melanoma = labels[order] == 1
    ordered = weights[:, order]
    return (
        np.add.reduceat(ordered * melanoma, starts, axis=1),
        np.add.reduceat(ordered * ~melanoma, starts, axis=1),
    )


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    ratio: Floats = np.divide(numerator, denominator, out=np.full(len(denominator), np.nan), where=denominator > 0)
    return ratio
