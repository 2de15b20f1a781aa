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
    _, group = np.unique(lesions, return_inverse=True)
    # Sorted once, and not looked through for each lesion: an archive has 100,000 of them.
    rows_of = np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))[:-1])
    label_of = np.array([labels[rows[0]] for rows in rows_of])
    strata = [np.flatnonzero(label_of == value) for value in np.unique(label_of)]
    rng = np.random.default_rng(seed)
    for _ in range(resamples):
        drawn = np.concatenate([rng.choice(stratum, stratum.size) for stratum in strata])
        yield np.concatenate([rows_of[lesion] for lesion in drawn])


def interval(
    statistic: Callable[[npt.NDArray[np.intp]], float],
    lesions: npt.NDArray[np.object_],
    labels: npt.NDArray[np.int64],
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> Interval:
    """A statistic on all rows with its lesion-clustered 95% interval.

    Args:
        statistic: takes row numbers, gives the figure.
        lesions: (n,), lesion of each image.
        labels: (n,), class of each image.
        seed: of the draws.
        resamples: how many.
    """
    drawn = [statistic(rows) for rows in lesion_resamples(lesions, labels, seed=seed, resamples=resamples)]
    low, high = np.percentile(drawn, (2.5, 97.5))
    return Interval(value=statistic(np.arange(len(labels))), low=float(low), high=float(high))


class LesionBootstrap:
    """The draws behind every interval of a report: made once, so that figures of one report share them.

    Args:
        lesions: (n,), lesion of each image.
        labels: (n,), class of each image.
        seed: of the draws.
        resamples: how many.
    """

    def __init__(
        self,
        lesions: npt.NDArray[np.object_],
        labels: npt.NDArray[np.int64],
        *,
        seed: int,
        resamples: int = RESAMPLES,
    ) -> None:
        count = len(labels)
        drawn = lesion_resamples(lesions, labels, seed=seed, resamples=resamples)
        #: How often each image was drawn, (resamples, n).
        self.weights: Floats = np.stack([np.bincount(rows, minlength=count) for rows in drawn]).astype(np.float64)
        self._all = np.ones((1, count))

    def __call__(self, statistic: WeightedStatistic) -> Interval:
        """A statistic on all rows with its lesion-clustered 95% interval; resamples where it is undefined are left out.

        Args:
            statistic: takes weights (resamples, n), gives (resamples,).
        """
        value = float(statistic(self._all)[0])
        drawn = statistic(self.weights)
        drawn = drawn[np.isfinite(drawn)]
        if not (np.isfinite(value) and drawn.size):
            return Interval(value=value, low=float("nan"), high=float("nan"))
        low, high = np.percentile(drawn, (2.5, 97.5))
        return Interval(value=value, low=float(low), high=float(high))
