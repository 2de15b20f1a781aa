"""The figures of one set of scored images at frozen thresholds, as JSON: what every report is made of.

All intervals are 95% percentile intervals over resampled lesions; the figures of one set share their draws.
"""

from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from trainer.metrics.coverage import coverage_risk
from trainer.metrics.decision_curve import THRESHOLD_PROBABILITIES, net_benefit
from trainer.metrics.discrimination import (
    Labels,
    auroc,
    average_precision,
    precision_recall_points,
    roc_points,
    share,
    specificity_at_sensitivity,
)
from trainer.metrics.prevalence import PREVALENCES, predictive_values, range_of_predictive_values
from trainer.metrics.subgroups import as_json, describe, share_of, stratify
from trainer.thresholds.bootstrap import RESAMPLES, Floats, Interval, LesionBootstrap, WeightedStatistic
from trainer.thresholds.calibration import (
    brier,
    calibration_intercept,
    calibration_slope,
    expected_calibration_error,
    reliability,
)
from trainer.thresholds.policies import BOOTSTRAP_SEED
from trainer.thresholds.threshold import Lesions
from worker.inference.bundle import PolicyThreshold

#: Sensitivity that the ROC curve is read at.
READ_AT_SENSITIVITY = 0.95


def assess(
    images: pd.DataFrame, thresholds: dict[str, PolicyThreshold], *, resamples: int = RESAMPLES
) -> dict[str, Any]:
    """Everything that can be said of scored images at frozen thresholds.

    Args:
        images: rows with ``label`` (1 melanoma, 0 nevus), ``lesion_id``, ``raw_probability`` (the network's output),
            ``probability`` (calibrated), and any of the columns of `trainer.metrics.subgroups.group_columns`.
        thresholds: by policy, on calibrated probabilities.
        resamples: behind each interval.

    Returns:
        ``counts``, ``images`` and ``lesions`` (figures at both levels), ``curves``, ``calibration``, ``prevalence``,
        ``decision_curve``, ``strata``, ``histology_only`` (or None) and ``coverage``.

    Raises:
        ValueError: a class is missing.
    """
    labels = images["label"].to_numpy()
    if len(np.unique(labels)) != 2:
        raise ValueError(
            f"Received: {int((labels == 1).sum())} melanomas among {len(labels)} images. Expected: melanomas and nevi."
        )
    probabilities = images["probability"].to_numpy()
    lesions = images["lesion_id"].to_numpy(object)
    bootstrap = LesionBootstrap(lesions, labels, seed=BOOTSTRAP_SEED, resamples=resamples)
    limits = {name: policy.threshold for name, policy in thresholds.items()}
    lesion_rows = by_lesion(images)
    return {
        "counts": counts(images),
        "images": _figures(labels, probabilities, lesions, limits, bootstrap),
        "lesions": _lesion_figures(lesion_rows, limits, resamples=resamples),
        "curves": {"roc": roc_points(labels, probabilities), "pr": precision_recall_points(labels, probabilities)},
        "calibration": {
            "before": calibration_measures(labels, images["raw_probability"].to_numpy(), bootstrap),
            "after": calibration_measures(labels, probabilities, bootstrap),
        },
        "prevalence": {
            name: _prevalences(labels, probabilities >= limit, lesions, bootstrap) for name, limit in limits.items()
        },
        "decision_curve": _decision_curve(labels, probabilities, bootstrap),
        "strata": stratify(images, limits, seed=BOOTSTRAP_SEED, resamples=resamples),
        "histology_only": _histology_only(images, limits, resamples=resamples),
        "coverage": {
            name: [_finite(asdict(point)) for point in coverage_risk(labels, probabilities, limit)]
            for name, limit in limits.items()
        },
    }


def counts(images: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Images and lesions of each class."""
    return {
        "images": {name: int((images["label"] == value).sum()) for name, value in (("melanoma", 1), ("nevus", 0))},
        "lesions": {
            name: int(images.loc[images["label"] == value, "lesion_id"].nunique())
            for name, value in (("melanoma", 1), ("nevus", 0))
        },
    }


def by_lesion(images: pd.DataFrame) -> pd.DataFrame:
    """One row a lesion: ``label``, and the ``highest`` and ``lowest`` calibrated probability among its images."""
    grouped = images.groupby("lesion_id", sort=True)
    return pd.DataFrame(
        {
            "label": grouped["label"].first(),
            "highest": grouped["probability"].max(),
            "lowest": grouped["probability"].min(),
        }
    ).reset_index()


def _figures(
    labels: Labels,
    probabilities: Floats,
    lesions: Lesions,
    limits: dict[str, float],
    bootstrap: LesionBootstrap,
) -> dict[str, Any]:
    policies = {}
    for name, limit in limits.items():
        called = probabilities >= limit
        policies[name] = {
            "threshold": limit,
            "sensitivity": share_of(bootstrap, called, labels == 1, lesions),
            "specificity": share_of(bootstrap, ~called, labels == 0, lesions),
            "missed": int((~called & (labels == 1)).sum()),
            "flagged": int(called.sum()),
        }
    return {
        "auroc": as_json(bootstrap(lambda weights: auroc(labels, probabilities, weights))),
        "auprc": as_json(bootstrap(lambda weights: average_precision(labels, probabilities, weights))),
        "specificity_at_95_sensitivity": as_json(
            bootstrap(
                lambda weights: specificity_at_sensitivity(
                    labels, probabilities, weights, sensitivity=READ_AT_SENSITIVITY
                )
            )
        ),
        "policies": policies,
    }


def _lesion_figures(rows: pd.DataFrame, limits: dict[str, float], *, resamples: int) -> dict[str, Any]:
    """The figures with one case a lesion, scored by its highest image; and how many are caught by every image."""
    labels, highest = rows["label"].to_numpy(), rows["highest"].to_numpy()
    names = rows["lesion_id"].to_numpy(object)
    bootstrap = LesionBootstrap(names, labels, seed=BOOTSTRAP_SEED, resamples=resamples)
    figures = _figures(labels, highest, names, limits, bootstrap)
    for name, limit in limits.items():
        every = rows["lowest"].to_numpy() >= limit
        figures["policies"][name]["sensitivity_every_image"] = share_of(bootstrap, every, labels == 1, names)
    return figures


def calibration_measures(labels: Labels, probabilities: Floats, bootstrap: LesionBootstrap) -> dict[str, Any]:
    """Reliability curve, Brier score, ECE, slope and intercept with their intervals.

    Args:
        labels: (n,), 1 for melanoma and 0 for nevus.
        probabilities: (n,).
        bootstrap: of the same images.
    """
    measures = {
        "brier": brier,
        "ece": expected_calibration_error,
        "slope": calibration_slope,
        "intercept": calibration_intercept,
    }
    return {
        "mean_predicted": float(probabilities.mean()),
        "observed": float(labels.mean()),
        **{
            name: as_json(bootstrap(lambda weights, m=measure: m(labels, probabilities, weights)))  # type: ignore[misc]
            for name, measure in measures.items()
        },
        "bins": [asdict(part) for part in reliability(labels, probabilities)],
    }


def _prevalences(
    labels: Labels, called: npt.NDArray[np.bool_], lesions: Lesions, bootstrap: LesionBootstrap
) -> list[dict[str, Any]]:
    sensitivities = share_of(bootstrap, called, labels == 1, lesions)
    specificities = share_of(bootstrap, ~called, labels == 0, lesions)
    exact = 0 in (of := (sensitivities["value"], specificities["value"])) or 1 in of
    rows = []
    for prevalence in PREVALENCES:

        def values(weights: Floats, which: int, prevalence: float = prevalence) -> Floats:
            sensitivity, specificity = share(called, labels == 1, weights), share(~called, labels == 0, weights)
            return predictive_values(sensitivity, specificity, prevalence)[which]

        named = {
            name: bootstrap(lambda weights, v=values, w=which: v(weights, w))  # type: ignore[misc]
            for which, name in enumerate(("ppv", "npv", "referred"))
        }
        if exact and None not in (ends := [*_ends(sensitivities), *_ends(specificities)]):
            ranges = range_of_predictive_values((ends[0], ends[1]), (ends[2], ends[3]), prevalence)
            named = {
                name: Interval(value=found.value, low=low, high=high)
                for (name, found), (low, high) in zip(named.items(), ranges, strict=True)
            }
        rows.append({"prevalence": prevalence, **{name: as_json(found) for name, found in named.items()}})
    return rows


def _ends(share: dict[str, float | None]) -> tuple[Any, Any]:
    return share["low"], share["high"]


def _decision_curve(labels: Labels, probabilities: Floats, bootstrap: LesionBootstrap) -> list[dict[str, Any]]:
    everyone = np.ones(len(labels), bool)
    ones = np.ones((1, len(labels)))
    rows = []
    for threshold in THRESHOLD_PROBABILITIES:
        flagged = probabilities >= threshold

        def model(weights: Floats, f: npt.NDArray[np.bool_] = flagged, t: float = threshold) -> Floats:
            return net_benefit(labels, f, t, weights)

        def gain(weights: Floats, model: WeightedStatistic = model, t: float = threshold) -> Floats:
            # Within a resample, for both rules are judged on the same images: their separate intervals say less.
            return model(weights) - np.maximum(net_benefit(labels, everyone, t, weights), 0)

        rows.append(
            {
                "threshold": threshold,
                "model": as_json(bootstrap(model)),
                "gain": as_json(bootstrap(gain)),
                "refer_all": float(net_benefit(labels, everyone, threshold, ones)[0]),
                "refer_none": 0.0,
            }
        )
    return rows


def _histology_only(images: pd.DataFrame, limits: dict[str, float], *, resamples: int) -> dict[str, Any] | None:
    if "dx_type" not in images:
        return None
    proven = images[(images["dx_type"] == "histo").to_numpy()]
    if not len(proven):
        return None
    return describe(proven, limits, seed=BOOTSTRAP_SEED, resamples=resamples)


def _finite(figures: dict[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not np.isfinite(value) else value for name, value in figures.items()
    }
