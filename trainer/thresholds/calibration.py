"""Calibrate probabilities at the prevalence of the data they are fitted on, and measure calibration.

Measures follow Van Calster et al., "Calibration: the Achilles heel of predictive analytics", BMC Medicine 17:230
(2019). They take weights, so that all resamples of a bootstrap are computed at once.
"""

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from trainer.errors import InputError
from worker.inference.bundle import Calibration, logit
from worker.inference.metrics import ReliabilityBin

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

#: Groups of equal size in a reliability curve and the ECE.
BINS = 10
#: Newton steps of a logistic regression with two parameters. It needs fewer than ten.
_STEPS = 30
#: A step smaller than this ends it.
_SETTLED = 1e-6
#: Inverse strength of the penalty, which is so weak that this is maximum likelihood.
_WEAK_PENALTY = 1e6


def fit_platt(
    labels: npt.NDArray[np.int64], raw: npt.NDArray[np.float64], weights: npt.NDArray[np.float64] | None = None
) -> Calibration:
    """Fit Platt scaling on validation images.

    Balanced batches and the focal loss's alpha shift the network's output away from the share of melanomas. A slope and
    an intercept on the log-odds correct that and keep the order, so no AUC changes.

    As in Platt's paper the labels are moved a little towards each other, (N + 1) / (N + 2), so that the fit exists even
    if a threshold separates the classes perfectly.

    Args:
        labels: (n,), 1 for melanoma and 0 for nevus. Both must occur.
        raw: (n,), the network's outputs.
        weights: (n,), how much each image counts. None: all the same.

    Returns:
        The calibration.

    Raises:
        InputError: a class is missing, the outputs are all equal, or they rank melanomas below nevi (a slope that is
            not positive).
    """
    odds = np.array([[logit(value)] for value in raw])
    weights = np.ones(len(raw)) if weights is None else weights
    if np.ptp(raw) == 0:
        raise InputError("The model gives the same output for every image: it learned nothing. Train again.")
    melanomas = int((labels == 1).sum())
    nevi = len(labels) - melanomas
    if not (melanomas and nevi):
        raise InputError(f"There are {melanomas} melanomas and {nevi} nevi to calibrate on. Both classes are needed.")
    target = np.where(labels == 1, (melanomas + 1) / (melanomas + 2), 1 / (nevi + 2))
    # A soft label is each image twice, once with either label, weighted.
    model = LogisticRegression(C=_WEAK_PENALTY).fit(
        np.concatenate((odds, odds)),
        np.repeat([1, 0], len(labels)),
        sample_weight=np.concatenate((target, 1 - target)) * np.tile(weights, 2),
    )
    slope, intercept = float(model.coef_[0, 0]), float(model.intercept_[0])
    if slope <= 0:
        raise InputError(
            f"The model ranks melanomas below nevi (Platt slope {slope:.3f}): it learned nothing, or the labels are "
            "swapped. Train longer, or check the labels."
        )
    return Calibration(method="platt", slope=slope, intercept=intercept)


def equal_bins(probabilities: Floats, bins: int = BINS) -> npt.NDArray[np.intp]:
    """Group of each image, from 0 for the lowest probabilities. Groups have equal size as far as ties allow.

    Args:
        probabilities: (n,).
        bins: how many groups.

    Returns:
        (n,). Images of equal probability share a group.
    """
    edges = np.quantile(probabilities, np.linspace(0, 1, bins + 1)[1:-1])
    return np.unique(np.searchsorted(edges, probabilities, side="right"), return_inverse=True)[1]


def reliability(labels: Labels, probabilities: Floats, bins: int = BINS) -> list[ReliabilityBin]:
    """The reliability curve: what was predicted and what was found, in groups of equal size.

    Args:
        labels: (n,), 1 for melanoma and 0 for nevus.
        probabilities: (n,).
        bins: how many groups.
    """
    group = equal_bins(probabilities, bins)
    return [
        ReliabilityBin(
            images=int((group == number).sum()),
            predicted=float(probabilities[group == number].mean()),
            observed=float(labels[group == number].mean()),
        )
        for number in range(group.max() + 1)
    ]


def expected_calibration_error(labels: Labels, probabilities: Floats, weights: Floats, bins: int = BINS) -> Floats:
    """ECE: mean distance between predicted and observed over groups of equal size, weighted by their size.

    Naeini et al., "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015; with groups of equal
    size, for with equal widths most images would be in the first.

    Args:
        labels: (n,), 1 for melanoma and 0 for nevus.
        probabilities: (n,).
        weights: (resamples, n); the groups are those of all images, whatever the weights.
        bins: how many groups.

    Returns:
        (resamples,).

    Example:
        Ten images at 0.2 of which three are melanomas, and ten at 0.9 of which eight are: 0.5 * 0.1 + 0.5 * 0.1 = 0.1.
    """
    member = np.eye(bins)[equal_bins(probabilities, bins)]
    gap = np.abs(weights @ (member * (probabilities - labels)[:, None])).sum(axis=1)
    error: Floats = gap / weights.sum(axis=1)
    return error


def brier(labels: Labels, probabilities: Floats, weights: Floats) -> Floats:
    """Brier score: mean squared distance between probability and truth. Brier, Monthly Weather Review 78:1 (1950).

    Args:
        labels: (n,), 1 for melanoma and 0 for nevus.
        probabilities: (n,).
        weights: (resamples, n).

    Returns:
        (resamples,).
    """
    score: Floats = weights @ (probabilities - labels) ** 2 / weights.sum(axis=1)
    return score


def calibration_slope(labels: Labels, probabilities: Floats, weights: Floats) -> Floats:
    """Slope of the logistic regression of the truth on the log-odds: 1 when probabilities spread as they should.

    Below 1 they are too extreme, above 1 too timid. Cox, "Two further applications of a model for binary regression",
    Biometrika 45:562 (1958).

    Args:
        labels: (n,), 1 for melanoma and 0 for nevus.
        probabilities: (n,).
        weights: (resamples, n).

    Returns:
        (resamples,); not a number where the fit does not exist, as when a threshold separates the classes.
    """
    odds = np.array([logit(value) for value in probabilities])
    parameters = np.zeros((len(weights), 2))
    design = np.stack((np.ones_like(odds), odds), axis=1)
    pairs = (design[:, :, None] * design[:, None, :]).reshape(-1, 4)
    for _ in range(_STEPS):
        fitted = _sigmoid(parameters @ design.T)
        gradient = (weights * (labels - fitted)) @ design
        information = (weights * fitted * (1 - fitted)) @ pairs
        step = _solve(information.reshape(-1, 2, 2), gradient)
        parameters = parameters + step
        if np.abs(step).max() < _SETTLED:
            break
    settled = np.abs(step).max(axis=1) < _SETTLED
    return np.where(settled, parameters[:, 1], np.nan)


def calibration_intercept(labels: Labels, probabilities: Floats, weights: Floats) -> Floats:
    """Calibration in the large: the shift of all log-odds that makes predicted and observed shares agree, slope 1.

    0 when melanomas are as many as predicted, above 0 when there are more.

    Args:
        labels: (n,), 1 for melanoma and 0 for nevus.
        probabilities: (n,).
        weights: (resamples, n).

    Returns:
        (resamples,); not a number where the fit does not exist, as when a class has no weight.
    """
    odds = np.array([logit(value) for value in probabilities])
    shift = np.zeros(len(weights))
    step = np.zeros(len(weights))
    for _ in range(_STEPS):
        fitted = _sigmoid(odds + shift[:, None])
        gradient = np.sum(weights * (labels - fitted), axis=1)
        information = np.sum(weights * fitted * (1 - fitted), axis=1)
        step = np.clip(gradient / np.maximum(information, 1e-12), -2, 2)
        shift = shift + step
        if np.abs(step).max() < _SETTLED:
            break
    return np.where(np.abs(step) < _SETTLED, shift, np.nan)


def _sigmoid(odds: Floats) -> Floats:
    risen: Floats = np.exp(-np.logaddexp(0, -odds))
    return risen


def _solve(information: Floats, gradient: Floats) -> Floats:
    """Newton's step for two parameters, (resamples, 2), cut short where it would leap."""
    (a, b), (c, d) = information[:, 0].T, information[:, 1].T
    determinant = np.where(a * d - b * c > 1e-12, a * d - b * c, np.inf)
    step = np.stack(
        (
            (d * gradient[:, 0] - b * gradient[:, 1]) / determinant,
            (a * gradient[:, 1] - c * gradient[:, 0]) / determinant,
        ),
        axis=1,
    )
    clipped: Floats = np.clip(step, -2, 2)
    # No information at all: the fit does not exist, so it must not pass for settled.
    clipped[~np.isfinite(determinant)] = 2
    return clipped
