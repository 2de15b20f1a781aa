"""Figures by subgroup: age, sex, site, source, proof of diagnosis, skin tone."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from trainer.data.counts import count_classes
from trainer.data.diagnoses import MAX_AGE
from trainer.data.skin_tone import SKIN_TONES, skin_tone
from trainer.metrics.discrimination import auroc, share
from trainer.metrics.figures import GroupFigures, Subgroup, Subgroups
from trainer.thresholds.bootstrap import RESAMPLES, Interval, LesionBootstrap
from trainer.thresholds.threshold import exact_interval
from worker.inference.metrics import Estimate, SensitivitySpecificity

Floats = npt.NDArray[np.float64]

UNKNOWN = "unknown"
#: With fewer lesions of a class, a figure says more about chance than about the group.
MIN_LESIONS = 5
_AGE_BANDS = ((0, 30), (30, 45), (45, 60), (60, 75), (75, MAX_AGE + 1))


def age_band(age: float) -> str:
    """Band of an age in years. HAM10000 gives ages in steps of five."""
    if not 0 <= age <= MAX_AGE:
        return UNKNOWN
    low, high = next(band for band in _AGE_BANDS if age < band[1])
    if low == 0:
        return f"under {high}"
    return f"{low} and over" if high == _AGE_BANDS[-1][1] else f"{low} to {high - 1}"


def _order_of_ages(name: str) -> int:
    return [*(age_band(low) for low, _ in _AGE_BANDS), UNKNOWN].index(name)


def _order_of_tones(name: str) -> int:
    return [*(tone for tone, _ in SKIN_TONES), UNKNOWN].index(name)


def group_columns(images: pd.DataFrame) -> dict[str, pd.Series]:
    """The groupings that the columns allow.

    Args:
        images: rows with any of ``age``, ``sex``, ``localization``, ``dataset``, ``dx_type`` and ``ita`` (degrees).

    Returns:
        The group of each row, by the name of the variable.
    """
    groups: dict[str, pd.Series] = {}
    if "age" in images:
        groups["Age"] = pd.to_numeric(images["age"], errors="coerce").map(age_band, na_action=None)
    for column, name in (
        ("sex", "Sex"),
        ("localization", "Site"),
        ("dataset", "Source"),
        ("dx_type", "Proof of diagnosis"),
    ):
        if column in images:
            text = images[column].fillna(UNKNOWN).astype(str).str.strip()
            groups[name] = text.where(text != "", UNKNOWN)
    if "ita" in images:
        groups["Skin tone (ITA, exploratory)"] = images["ita"].map(skin_tone, na_action=None)
    return groups


def describe_subgroups(
    images: pd.DataFrame, thresholds: dict[str, float], *, seed: int, resamples: int = RESAMPLES
) -> tuple[Subgroups, ...]:
    """Figures for each group of each variable.

    Args:
        images: rows with ``label``, ``lesion_id``, ``probability`` and the columns of `group_columns`.
        thresholds: by policy.
        seed: of the resampling.
        resamples: behind each interval.
    """
    found = []
    for variable, groups in group_columns(images).items():
        order: Callable[[str], Any] = str
        if variable == "Age":
            order = _order_of_ages
        elif variable.startswith("Skin tone"):
            order = _order_of_tones
        rows = []
        for name in sorted(groups.unique(), key=order):
            figures = describe(images[(groups == name).to_numpy()], thresholds, seed=seed, resamples=resamples)
            rows.append(Subgroup(group=name, **dict(figures)))
        found.append(Subgroups(variable=variable, groups=tuple(rows)))
    return tuple(found)


def describe(
    images: pd.DataFrame, thresholds: dict[str, float], *, seed: int, resamples: int = RESAMPLES
) -> GroupFigures:
    """Counts and figures of one group, with lesion-clustered intervals.

    Args:
        images: rows with ``label``, ``lesion_id`` and ``probability``.
        thresholds: by policy.
        seed: of the resampling.
        resamples: behind each interval.
    """
    labels = images["label"].to_numpy()
    probabilities = images["probability"].to_numpy()
    lesions = images["lesion_id"].to_numpy(object)
    counts = count_classes(images)
    bootstrap = LesionBootstrap(lesions, labels, seed=seed, resamples=resamples) if len(images) else None

    def share_or_none(flags: npt.NDArray[np.bool_], label: int) -> Estimate | None:
        among = labels == label
        return share_of(bootstrap, flags, among, lesions) if bootstrap and among.any() else None

    both = bool(counts.images.melanoma and counts.images.nevus)
    return GroupFigures(
        images=counts.images,
        lesions=counts.lesions,
        few=tuple(name for name in ("melanoma", "nevus") if getattr(counts.lesions, name) < MIN_LESIONS),
        auroc=estimate(bootstrap(lambda weights: auroc(labels, probabilities, weights)))
        if bootstrap and both
        else None,
        policies={
            name: SensitivitySpecificity(
                sensitivity=share_or_none(probabilities >= threshold, 1),
                specificity=share_or_none(probabilities < threshold, 0),
            )
            for name, threshold in thresholds.items()
        },
    )


def share_of(
    bootstrap: LesionBootstrap,
    flags: npt.NDArray[np.bool_],
    among: npt.NDArray[np.bool_],
    lesions: npt.NDArray[np.object_],
) -> Estimate:
    """A share with its 95% interval: sensitivity among melanomas, specificity among nevi.

    Where all are flagged, or none, every resample gives the same value, which would claim certainty. The interval is
    then the exact one (Clopper-Pearson) of that many lesions.

    Args:
        bootstrap: of the same images.
        flags: (n,).
        among: (n,), at least one is true.
        lesions: (n,), lesion of each image.
    """
    found = bootstrap(lambda weights: share(flags, among, weights))
    if found.value in (0.0, 1.0):
        count = len(np.unique(lesions[among].astype(str)))
        low, high = exact_interval(count if found.value else 0, count)
        found = Interval(value=found.value, low=low, high=high)
    return estimate(found)


def estimate(interval: Interval) -> Estimate:
    """An interval for a report. A value that is not a number becomes None.

    So do the ends of an interval without width: where every resample gives the same value, as with perfectly separated
    classes, resampling cannot tell how much of that is chance.
    """
    value, low, high = (
        float(number) if np.isfinite(number) else None for number in (interval.value, interval.low, interval.high)
    )
    return Estimate(value=value, low=low, high=high) if low != high else Estimate(value=value)
