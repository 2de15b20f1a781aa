"""The threshold of high risk: by Youden's J, or by a sensitivity that validation proves.

Several images of one melanoma are one case. A worker flags each image by itself, and an archive may hold only one image
of a lesion. So a lesion counts as caught if every one of its images is at or above the threshold. Counting its highest
image would promise a sensitivity that does not hold for a lesion with one image.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import beta  # type: ignore[import-untyped, unused-ignore]
from sklearn.metrics import roc_curve

from trainer.errors import InputError, TooFewLesionsError
from trainer.thresholds.bootstrap import lesion_resamples
from trainer.thresholds.clinic_weights import Clinics, clinic_weights, effective_count
from worker.inference.bundle import LesionSensitivity

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Lesions = npt.NDArray[np.object_]

#: One-sided confidence of a proven sensitivity.
CONFIDENCE = 0.95
#: The borderline band begins at this percentile of the threshold over resampled lesions.
_BAND_PERCENTILE = 5
#: Of a sum of weights.
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """A threshold with its sensitivity and specificity. An image at or above the threshold is flagged."""

    threshold: float
    sensitivity: float
    specificity: float


def operating_point(labels: Labels, probabilities: Floats, threshold: float, clinics: Clinics = None) -> OperatingPoint:
    """Sensitivity and specificity at a given threshold.

    Args:
        labels: (n,), 1 for melanoma and 0 for nevus. Both must occur.
        probabilities: (n,).
        threshold: an image at or above it is flagged.
        clinics: (n,), clinic of each image, which then weigh the same; see `trainer.thresholds.clinic_weights`.

    Raises:
        InputError: a class is missing.
    """
    _require_both_classes(labels)
    flagged, weights = probabilities >= threshold, clinic_weights(labels, clinics)
    melanoma, nevus = labels == 1, labels == 0
    return OperatingPoint(
        threshold=float(threshold),
        sensitivity=float(np.average(flagged[melanoma], weights=weights[melanoma])),
        specificity=float(np.average(~flagged[nevus], weights=weights[nevus])),
    )


def youden_threshold(labels: Labels, probabilities: Floats, clinics: Clinics = None) -> float:
    """The threshold with the greatest Youden's J = sensitivity + specificity - 1.

    Youden, "Index for rating diagnostic tests", Cancer 3:32 (1950). If several thresholds have the greatest J, the
    lowest is taken, because a missed melanoma is the harm that counts. The threshold lies halfway to the next lower
    probability, so that rounding in another engine does not change the flag of the image that set it.

    Args:
        labels: (n,), 1 for melanoma and 0 for nevus. Both must occur.
        probabilities: (n,).
        clinics: (n,), clinic of each image, which then weigh the same; see `trainer.thresholds.clinic_weights`.

    Returns:
        The threshold.

    Raises:
        InputError: a class is missing.

    Example:
        >>> youden_threshold(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.3, 0.8]))
        0.2
    """
    _require_both_classes(labels)
    false_positive_rate, true_positive_rate, thresholds = roc_curve(
        labels, probabilities, sample_weight=clinic_weights(labels, clinics), drop_intermediate=False
    )
    j = true_positive_rate - false_positive_rate
    # Equal values of J may differ in the last bit, because they are quotients.
    best = np.flatnonzero(j >= j.max() - 1e-12)[-1]
    return _halfway_down(float(thresholds[best]), probabilities)


def youden_band(
    labels: Labels, probabilities: Floats, lesions: Lesions, *, seed: int, clinics: Clinics = None
) -> float:
    """Lower end of the threshold's uncertainty: the 5th percentile of Youden's threshold over resampled lesions.

    An image between it and the threshold is borderline: with another validation set of the same size, the threshold
    might well be below it.

    Args:
        labels: (n,), 1 for melanoma and 0 for nevus.
        probabilities: (n,).
        lesions: (n,), lesion of each image.
        seed: of the resampling.
        clinics: (n,), clinic of each image, which then weigh the same; see `trainer.thresholds.clinic_weights`.

    Returns:
        A probability, at most the threshold on all data.
    """

    def threshold(rows: npt.NDArray[np.intp]) -> float:
        return youden_threshold(labels[rows], probabilities[rows], None if clinics is None else clinics[rows])

    band = _band(threshold, labels, lesions, seed=seed)
    return min(band, youden_threshold(labels, probabilities, clinics))


def lower_bound(caught: float, lesions: float, confidence: float = CONFIDENCE) -> float:
    """One-sided lower bound of a share.

    Clopper & Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial", Biometrika
    26:404 (1934): the share at which as many or more are caught with probability 1 - ``confidence``.

    Args:
        caught: number of caught lesions.
        lesions: number of lesions, at least 1; or the effective number of weighted ones (Korn & Graubard, "Confidence
            intervals for proportions with small expected number of positive counts", Survey Methodology 24:193, 1998).
        confidence: of the bound.

    Example:
        >>> round(lower_bound(59, 59), 4)
        0.9505
    """
    return float(beta.ppf(1 - confidence, caught, lesions - caught + 1)) if caught else 0.0


def exact_interval(caught: int, lesions: int) -> tuple[float, float]:
    """Two-sided 95% interval of a share after Clopper & Pearson (see `lower_bound`).

    Args:
        caught: number of caught lesions.
        lesions: number of lesions, at least 1.
    """
    return lower_bound(caught, lesions, 0.975), 1 - lower_bound(lesions - caught, lesions, 0.975)


def allowed_misses(lesions: int, target: float) -> int:
    """How many lesions a threshold may miss if it is to prove a sensitivity.

    Args:
        lesions: melanoma lesions in validation.
        target: sensitivity to prove, above 0 and below 1.

    Returns:
        The largest number of misses whose lower bound is at least ``target``. -1 when 0 misses do not prove it.
    """
    misses = -1
    while misses + 1 < lesions and lower_bound(lesions - misses - 1, lesions) >= target:
        misses += 1
    return misses


def sensitivity_threshold(
    labels: Labels, probabilities: Floats, lesions: Lesions, *, target: float, clinics: Clinics = None
) -> float:
    """The highest threshold whose sensitivity on melanoma lesions is proven to be at least a target.

    It is proven if its one-sided 95% lower Clopper-Pearson bound is at least the target. A lesion is caught if all of
    its images are flagged. As in `youden_threshold`, the threshold lies halfway to the next lower probability of any
    image, which flags the same images.

    Args:
        labels: (n,), 1 for melanoma and 0 for nevus. Both must occur.
        probabilities: (n,).
        lesions: (n,), lesion of each image.
        target: sensitivity to prove, above 0 and below 1.
        clinics: (n,), clinic of each image, which then weigh the same; see `trainer.thresholds.clinic_weights`.

    Returns:
        The threshold.

    Raises:
        TooFewLesionsError: even without a miss the bound would be below the target.
        InputError: a class is missing, or the target is not between 0 and 1.

    Example:
        Of 59 melanoma lesions none may be missed to prove 0.95, of 93 one, of 124 two, of 153 three.
    """
    _require_both_classes(labels)
    if not 0 < target < 1:
        raise InputError(f"A sensitivity of {target:g} cannot be proven: it must be above 0 and below 1.")
    lowest, weights = _melanoma_lesions(labels, probabilities, lesions, clinics)
    order = np.argsort(lowest, kind="stable")
    misses = _missed_lesions(weights[order], target)
    if misses < 0:
        raise TooFewLesionsError(
            f"{_counted(lowest, weights)} are too few to prove a sensitivity of {target:g}: at 95% confidence at "
            f"least {lesions_needed(target)} are needed, of which none is missed. Choose a lower sensitivity or "
            "youden, or validate on more lesions."
        )
    return _halfway_down(float(lowest[order][misses]), probabilities)


def _counted(lowest: Floats, weights: Floats) -> str:
    count = effective_count(weights)
    as_many = f", which count as {count:.0f} because clinics weigh the same," if count < len(lowest) - 0.5 else ""
    return f"{len(lowest)} melanoma lesions{as_many}"


def _missed_lesions(weights: Floats, target: float) -> int:
    """How many of the first lesions a threshold may miss if it is to prove a sensitivity. -1: not even none.

    Args:
        weights: of the lesions, from the lowest to the highest.
        target: sensitivity to prove.
    """
    if np.ptp(weights) == 0:
        return allowed_misses(len(weights), target)
    count, missed = effective_count(weights), np.cumsum(weights) / weights.sum()
    shares = np.concatenate(([0.0], missed[:-1]))
    bounds = np.array([lower_bound(count * (1 - share), count) for share in shares])
    return int((bounds >= target).sum()) - 1


def _melanoma_lesions(
    labels: Labels, probabilities: Floats, lesions: Lesions, clinics: Clinics
) -> tuple[Floats, Floats]:
    """The least probability of each melanoma lesion, and its weight, (lesions,), in the order of their sorted names."""
    melanoma = np.flatnonzero(labels == 1)
    _, first = np.unique(lesions[melanoma], return_index=True)
    of_lesions = None if clinics is None else clinics[melanoma[first]]
    weights = clinic_weights(np.ones(len(first), np.int64), of_lesions)
    return lowest_of_each_lesion(probabilities[melanoma], lesions[melanoma]), weights


def lesions_needed(target: float) -> int:
    """How many melanoma lesions prove a sensitivity when none of them is missed: 19 prove 0.85, 29 0.90, 59 0.95."""
    return next(count for count in range(1, 10_000_000) if lower_bound(count, count) >= target)


def sensitivity_band(
    labels: Labels, probabilities: Floats, lesions: Lesions, *, target: float, seed: int, clinics: Clinics = None
) -> float:
    """Lower end of that threshold's uncertainty, as for `youden_band`.

    If no miss is allowed, the threshold lies below every validation melanoma, and no resample gives a much lower one.
    The band is then narrow or empty.

    Args:
        labels: (n,), 1 for melanoma and 0 for nevus.
        probabilities: (n,).
        lesions: (n,), lesion of each image.
        target: sensitivity to prove.
        seed: of the resampling.
        clinics: (n,), clinic of each image, which then weigh the same; see `trainer.thresholds.clinic_weights`.

    Returns:
        A probability, at most the threshold on all data.

    Raises:
        TooFewLesionsError: as `sensitivity_threshold`.
    """
    chosen = sensitivity_threshold(labels, probabilities, lesions, target=target, clinics=clinics)
    melanoma = np.flatnonzero(labels == 1)
    _, first = np.unique(lesions[melanoma], return_index=True)
    lowest, weights = _melanoma_lesions(labels, probabilities, lesions, clinics)
    order = np.argsort(lowest, kind="stable")
    misses = weights[order][: _missed_lesions(weights[order], target)].sum()

    def threshold(rows: npt.NDArray[np.intp]) -> float:
        # Count the draws: a lesion that is drawn twice counts twice.
        drawn = np.bincount(rows, minlength=len(labels))
        missed = np.cumsum(drawn[melanoma[first]][order] * weights[order])
        place = np.searchsorted(missed, misses + _ROUNDING, side="right")
        return _halfway_down(float(lowest[order][place]), probabilities[drawn > 0])

    return min(_band(threshold, labels, lesions, seed=seed), chosen)


def lesion_sensitivity(
    labels: Labels, probabilities: Floats, lesions: Lesions, threshold: float, clinics: Clinics = None
) -> LesionSensitivity:
    """How many melanoma lesions a threshold catches with every image, and the lower bound of that share.

    Args:
        labels: (n,), 1 for melanoma and 0 for nevus. Melanomas must occur.
        probabilities: (n,).
        lesions: (n,), lesion of each image.
        threshold: an image at or above it is flagged.
        clinics: (n,), clinic of each image, which then weigh the same; see `trainer.thresholds.clinic_weights`.
    """
    lowest, weights = _melanoma_lesions(labels, probabilities, lesions, clinics)
    caught, count = lowest >= threshold, effective_count(weights)
    share = float(np.average(caught, weights=weights))
    # Exact for equal weights.
    bound = lower_bound(int(caught.sum()) if np.ptp(weights) == 0 else count * share, count)
    return LesionSensitivity(lesions=len(lowest), caught=int(caught.sum()), lower_bound=bound)


def lowest_of_each_lesion(probabilities: Floats, lesions: Lesions) -> Floats:
    """The least probability among the images of each lesion, (lesions,), in the order of their sorted names."""
    names, group = np.unique(lesions, return_inverse=True)
    lowest = np.full(len(names), np.inf)
    np.minimum.at(lowest, group, probabilities)
    return lowest


def _band(threshold: Callable[[npt.NDArray[np.intp]], float], labels: Labels, lesions: Lesions, *, seed: int) -> float:
    drawn = [threshold(rows) for rows in lesion_resamples(lesions, labels, seed=seed)]
    return float(np.percentile(drawn, _BAND_PERCENTILE))


def _halfway_down(chosen: float, probabilities: Floats) -> float:
    """Halfway from a probability to the next lower one. It flags the same images, with a margin."""
    below = probabilities[probabilities < chosen]
    if not below.size:
        return chosen
    middle = (chosen + float(below.max())) / 2
    # Between neighbouring floats, rounding may give the lower one.
    return middle if middle > below.max() else chosen


def _require_both_classes(labels: Labels) -> None:
    melanomas = int((labels == 1).sum())
    if not 0 < melanomas < len(labels):
        raise InputError(f"There are {melanomas} melanomas among {len(labels)} images. Both classes are needed.")
