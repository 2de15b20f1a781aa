"""How the figures differ between groups of images: by age, sex, site, source, proof of diagnosis, skin tone."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from trainer.data.skin_tone import SKIN_TONES, skin_tone
from trainer.metrics.discrimination import auroc, share
from trainer.thresholds.bootstrap import RESAMPLES, Interval, LesionBootstrap
from trainer.thresholds.threshold import exact_interval

Floats = npt.NDArray[np.float64]

UNKNOWN = "unknown"
#: Fewer lesions of a class than this, and a figure says more about chance than about the group.
FEWEST_LESIONS = 5
#: Years, as in a manifest of `dermq submit`; whoever is said to be older has an age that was not known, or a year of
#: birth in its place.
OLDEST = 130
_AGE_BANDS = ((0, 30), (30, 45), (45, 60), (60, 75), (75, OLDEST + 1))


def age_band(age: float) -> str:
    """Band of an age in years; HAM10000 gives ages in steps of five."""
    if not 0 <= age <= OLDEST:
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
    """The groups that the columns at hand allow.

    Args:
        images: rows with any of ``age``, ``sex``, ``localization``, ``dataset``, ``dx_type`` and ``ita`` (degrees).

    Returns:
        By the name of the variable, the group of each row.
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


def stratify(
    images: pd.DataFrame, thresholds: dict[str, float], *, seed: int, resamples: int = RESAMPLES
) -> list[dict[str, Any]]:
    """Figures for each group of each variable.

    Args:
        images: rows with ``label``, ``lesion_id``, ``probability`` and the columns of `group_columns`.
        thresholds: by policy.
        seed: of the resampling.
        resamples: behind each interval.

    Returns:
        One entry a variable: ``variable`` and ``groups``, each with its ``group`` and the keys of `describe`.
    """
    strata = []
    for variable, groups in group_columns(images).items():
        order: Callable[[str], Any] = str
        if variable == "Age":
            order = _order_of_ages
        elif variable.startswith("Skin tone"):
            order = _order_of_tones
        rows = [
            {
                "group": name,
                **describe(images[(groups == name).to_numpy()], thresholds, seed=seed, resamples=resamples),
            }
            for name in sorted(groups.unique(), key=order)
        ]
        strata.append({"variable": variable, "groups": rows})
    return strata


def describe(
    images: pd.DataFrame, thresholds: dict[str, float], *, seed: int, resamples: int = RESAMPLES
) -> dict[str, Any]:
    """Counts and figures of one group, with lesion-clustered intervals.

    Args:
        images: rows with ``label``, ``lesion_id`` and ``probability``.
        thresholds: by policy.
        seed: of the resampling.
        resamples: behind each interval.

    Returns:
        ``images`` and ``lesions`` by class; ``auroc``; ``policies`` with ``sensitivity`` and ``specificity``. A figure
        is None where a class it needs has no lesion, and ``few`` says which classes have fewer than `FEWEST_LESIONS`.
    """
    labels = images["label"].to_numpy()
    probabilities = images["probability"].to_numpy()
    lesions = images["lesion_id"].to_numpy(object)
    counts = {name: int((labels == value).sum()) for name, value in (("melanoma", 1), ("nevus", 0))}
    of_lesions = {
        name: int(pd.Series(lesions[labels == value]).nunique()) for name, value in (("melanoma", 1), ("nevus", 0))
    }
    found: dict[str, Any] = {
        "images": counts,
        "lesions": of_lesions,
        "few": [name for name, count in of_lesions.items() if count < FEWEST_LESIONS],
        "auroc": None,
        "policies": {name: {"sensitivity": None, "specificity": None} for name in thresholds},
    }
    if not len(images):
        return found
    bootstrap = LesionBootstrap(lesions, labels, seed=seed, resamples=resamples)
    if counts["melanoma"] and counts["nevus"]:
        found["auroc"] = as_json(bootstrap(lambda weights: auroc(labels, probabilities, weights)))
    for name, threshold in thresholds.items():
        called = probabilities >= threshold
        if counts["melanoma"]:
            found["policies"][name]["sensitivity"] = share_of(bootstrap, called, labels == 1, lesions)
        if counts["nevus"]:
            found["policies"][name]["specificity"] = share_of(bootstrap, ~called, labels == 0, lesions)
    return found


def share_of(
    bootstrap: LesionBootstrap,
    flags: npt.NDArray[np.bool_],
    among: npt.NDArray[np.bool_],
    lesions: npt.NDArray[np.object_],
) -> dict[str, float | None]:
    """A share with its 95% interval: sensitivity among melanomas, specificity among nevi.

    Where all are flagged, or none, every resample gives the same and would claim certainty; the interval is then the
    exact one (Clopper-Pearson) of that many lesions.

    Args:
        bootstrap: of the same images.
        flags: (n,).
        among: (n,), at least one.
        lesions: (n,), lesion of each image.
    """
    found = bootstrap(lambda weights: share(flags, among, weights))
    if found.value in (0.0, 1.0):
        count = len(np.unique(lesions[among].astype(str)))
        low, high = exact_interval(count if found.value else 0, count)
        found = Interval(value=found.value, low=low, high=high)
    return as_json(found)


def as_json(interval: Interval) -> dict[str, float | None]:
    """An interval as a JSON object; what is not a number becomes null.

    So do the ends of an interval without width: where every resample gives the same, as with classes that are perfectly
    separated, resampling cannot tell how much of that is chance, and no certainty is claimed.
    """
    value, low, high = (
        float(number) if np.isfinite(number) else None for number in (interval.value, interval.low, interval.high)
    )
    return {"value": value, "low": low, "high": high} if low != high else {"value": value, "low": None, "high": None}
