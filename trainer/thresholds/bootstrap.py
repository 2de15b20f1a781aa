"""Confidence intervals that know that several images show one lesion.

Whole lesions are drawn with replacement, stratified by class (Efron & Tibshirani, "An Introduction to the Bootstrap",
1993; for clusters: Field & Welsh, "Bootstrapping clustered data", 2007). Drawing images instead would treat siblings as
independent and give intervals that are too narrow.

A resample is either the numbers of its rows, for any statistic, or how often each row was drawn: a statistic that takes
such weights is computed for all resamples at once, which is a hundred times faster. Both draw alike.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

#: Resamples behind each interval.
RESAMPLES = 1_000
#: Weights that a statistic is given at once: 16 MB of floats.
_WEIGHTS_AT_ONCE = 2_000_000

Floats = npt.NDArray[np.float64]
#: Takes weights (resamples, n), gives one figure a resample, (resamples,); not a number where it is undefined.
WeightedStatistic = Callable[[Floats], Floats]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with its 95% percentile interval."""

    value: float
    low: float
    high: float


def lesion_resamples(
    lesions: npt.NDArray[np.object_], labels: npt.NDArray[np.int64], *, seed: int, resamples: int = RESAMPLES
) -> Iterator[npt.NDArray[np.intp]]:
    """Draw lesions with replacement, as many of each class as there are.

    Args:
        lesions: (n,), lesion of each image.
        labels: (n,), class of each image; the images of a lesion share one.
        seed: of the draws.
        resamples: how many.

    Yields:
        Row numbers of a resample; a lesion drawn twice gives its rows twice.
    """
    group = _group(lesions)
    # Sorted once, and not looked through for each lesion: an archive has 100,000 of them.
    rows_of = np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))[:-1])
    for drawn in _drawn_lesions(group, labels, seed=seed, resamples=resamples):
        yield np.concatenate([rows_of[lesion] for lesion in drawn])


def _group(lesions: npt.NDArray[np.object_]) -> npt.NDArray[np.intp]:
    """Number of each image's lesion, (n,)."""
    group: npt.NDArray[np.intp] = np.unique(lesions, return_inverse=True)[1]
    return group


def _drawn_lesions(
    group: npt.NDArray[np.intp], labels: npt.NDArray[np.int64], *, seed: int, resamples: int
) -> Iterator[npt.NDArray[np.intp]]:
    """Numbers of the lesions of each resample; one that is drawn twice is there twice."""
    _, first = np.unique(group, return_index=True)
    label_of = labels[first]
    strata = [np.flatnonzero(label_of == value) for value in np.unique(label_of)]
    rng = np.random.default_rng(seed)
    for _ in range(resamples):
        yield np.concatenate([rng.choice(stratum, stratum.size) for stratum in strata])


class LesionBootstrap:
    """The draws behind every interval of a report: made once, so that figures of one report share them.

    Args:
        lesions: (n,), lesion of each image.
        labels: (n,), class of each image.
        seed: of the draws.
        resamples: how many.
        weights: (n,), how much each image counts. None: all the same.
    """

    def __init__(
        self,
        lesions: npt.NDArray[np.object_],
        labels: npt.NDArray[np.int64],
        *,
        seed: int,
        resamples: int = RESAMPLES,
        weights: Floats | None = None,
    ) -> None:
        count, group = len(labels), _group(lesions)
        #: How often each image was drawn, (resamples, n); no resample draws a lesion as often as this type counts.
        self._weights = np.empty((resamples, count), np.uint16)
        for times, drawn in zip(
            self._weights, _drawn_lesions(group, labels, seed=seed, resamples=resamples), strict=True
        ):
            times[:] = np.bincount(drawn, minlength=group.max() + 1)[group]
        self._all = np.ones((1, count)) if weights is None else weights[None].astype(np.float64)
        #: Resamples at a time, for a statistic works on floats and copies them: of an archive all would take gigabytes.
        self._part = max(1, _WEIGHTS_AT_ONCE // max(1, count))

    def __call__(self, statistic: WeightedStatistic) -> Interval:
        """A statistic on all rows with its lesion-clustered 95% interval; resamples where it is undefined are left out.

        Args:
            statistic: takes weights (resamples, n), gives (resamples,).
        """
        value = float(statistic(self._all)[0])
        parts = range(0, len(self._weights), self._part)
        drawn = np.concatenate([statistic(self._weights[start : start + self._part] * self._all) for start in parts])
        drawn = drawn[np.isfinite(drawn)]
        if not (np.isfinite(value) and drawn.size):
            return Interval(value=value, low=float("nan"), high=float("nan"))
        low, high = np.percentile(drawn, (2.5, 97.5))
        return Interval(value=value, low=float(low), high=float(high))
