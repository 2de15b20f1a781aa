"""All figures of one set of scored images at given thresholds: the core of every report.

All intervals are 95% percentile intervals over resampled lesions. The figures of one set share their resamples.
"""

from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import numpy.typing as npt
import pandas as pd

from trainer.data.counts import count_classes
from trainer.errors import InputError
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
from trainer.metrics.figures import (
    Assessment,
    CalibrationFigures,
    CoveragePoint,
    Curves,
    GroupFigures,
    LevelFigures,
    NetBenefit,
    OperatingFigures,
    PredictiveValues,
)
from trainer.metrics.prevalence import PREVALENCES, predictive_values, range_of_predictive_values
from trainer.metrics.subgroups import describe, describe_subgroups, estimate, share_of
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
from worker.inference.metrics import CalibrationMeasures, Estimate

#: Sensitivity at which the ROC curve is read.
READ_AT_SENSITIVITY = 0.95


def assess(images: pd.DataFrame, thresholds: dict[str, PolicyThreshold], *, resamples: int = RESAMPLES) -> Assessment:
    """Compute all figures of scored images at given thresholds.

    Args:
        images: rows with ``label`` (1 melanoma, 0 nevus), ``lesion_id``, ``raw_probability`` (the network's output),
            ``probability`` (calibrated), and any of the columns of `trainer.metrics.subgroups.group_columns`.
        thresholds: by policy, on calibrated probabilities.
        resamples: behind each interval.

    Raises:
        InputError: a class is missing.
    """
    labels = images["label"].to_numpy()
    if len(np.unique(labels)) != 2:
        raise InputError(
            f"There are {int((labels == 1).sum())} melanomas among {len(labels)} "
            "images. An evaluation needs melanomas and nevi."
        )
    probabilities = images["probability"].to_numpy()
    lesions = images["lesion_id"].to_numpy(object)
    bootstrap = LesionBootstrap(lesions, labels, seed=BOOTSTRAP_SEED, resamples=resamples)
    limits = {name: policy.threshold for name, policy in thresholds.items()}
    lesion_rows = by_lesion(images)
    return Assessment(
        counts=count_classes(images),
        images=_figures(labels, probabilities, lesions, limits, bootstrap),
        lesions=_lesion_figures(lesion_rows, limits, resamples=resamples),
        curves=Curves(roc=roc_points(labels, probabilities), pr=precision_recall_points(labels, probabilities)),
        calibration=CalibrationFigures(
            before=calibration_measures(labels, images["raw_probability"].to_numpy(), bootstrap),
            after=calibration_measures(labels, probabilities, bootstrap),
        ),
        prevalence={
            name: _prevalences(labels, probabilities >= limit, lesions, bootstrap) for name, limit in limits.items()
        },
        decision_curve=_decision_curve(labels, probabilities, bootstrap),
        subgroups=describe_subgroups(images, limits, seed=BOOTSTRAP_SEED, resamples=resamples),
        histology_only=_histology_only(images, limits, resamples=resamples),
        coverage={
            name: tuple(
                CoveragePoint.model_validate(_finite(asdict(point)))
                for point in coverage_risk(labels, probabilities, limit)
            )
            for name, limit in limits.items()
        },
    )


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
    lowest: Floats | None = None,
) -> LevelFigures:
    """Figures with one case a row. ``lowest`` is the lowest probability of each lesion, by lesion only."""

    def operating(limit: float) -> OperatingFigures:
        flagged = probabilities >= limit
        return OperatingFigures(
            threshold=limit,
            sensitivity=share_of(bootstrap, flagged, labels == 1, lesions),
            specificity=share_of(bootstrap, ~flagged, labels == 0, lesions),
            missed=int((~flagged & (labels == 1)).sum()),
            flagged=int(flagged.sum()),
            sensitivity_every_image=None
            if lowest is None
            else share_of(bootstrap, lowest >= limit, labels == 1, lesions),
        )

    return LevelFigures(
        auroc=estimate(bootstrap(lambda weights: auroc(labels, probabilities, weights))),
        auprc=estimate(bootstrap(lambda weights: average_precision(labels, probabilities, weights))),
        specificity_at_95_sensitivity=estimate(
            bootstrap(
                lambda weights: specificity_at_sensitivity(
                    labels, probabilities, weights, sensitivity=READ_AT_SENSITIVITY
                )
            )
        ),
        policies={name: operating(limit) for name, limit in limits.items()},
    )


def _lesion_figures(rows: pd.DataFrame, limits: dict[str, float], *, resamples: int) -> LevelFigures:
    """The figures with one case a lesion, scored by its highest image; and the share caught by every image."""
    labels, highest = rows["label"].to_numpy(), rows["highest"].to_numpy()
    names = rows["lesion_id"].to_numpy(object)
    bootstrap = LesionBootstrap(names, labels, seed=BOOTSTRAP_SEED, resamples=resamples)
    return _figures(labels, highest, names, limits, bootstrap, lowest=rows["lowest"].to_numpy())


def calibration_measures(labels: Labels, probabilities: Floats, bootstrap: LesionBootstrap) -> CalibrationMeasures:
    """Reliability curve, Brier score, ECE, slope and intercept with their intervals.

    Args:
        labels: (n,), 1 for melanoma and 0 for nevus.
        probabilities: (n,).
        bootstrap: of the same images.
    """

    def measure(statistic: Callable[[Labels, Floats, Floats], Floats]) -> Estimate:
        return estimate(bootstrap(lambda weights: statistic(labels, probabilities, weights)))

    return CalibrationMeasures(
        mean_predicted=float(probabilities.mean()),
        observed=float(labels.mean()),
        brier=measure(brier),
        ece=measure(expected_calibration_error),
        slope=measure(calibration_slope),
        intercept=measure(calibration_intercept),
        bins=tuple(reliability(labels, probabilities)),
    )


def _prevalences(
    labels: Labels, called: npt.NDArray[np.bool_], lesions: Lesions, bootstrap: LesionBootstrap
) -> tuple[PredictiveValues, ...]:
    sensitivities = share_of(bootstrap, called, labels == 1, lesions)
    specificities = share_of(bootstrap, ~called, labels == 0, lesions)
    exact = bool({sensitivities.value, specificities.value} & {0, 1})
    ends = (sensitivities.low, sensitivities.high, specificities.low, specificities.high)
    rows = []
    for prevalence in PREVALENCES:

        def values(weights: Floats, which: int, prevalence: float = prevalence) -> Floats:
            sensitivity, specificity = share(called, labels == 1, weights), share(~called, labels == 0, weights)
            return predictive_values(sensitivity, specificity, prevalence)[which]

        named = {
            name: bootstrap(lambda weights, v=values, w=which: v(weights, w))  # type: ignore[misc]
            for which, name in enumerate(("ppv", "npv", "referred"))
        }
        low_1, high_1, low_2, high_2 = ends
        if exact and low_1 is not None and high_1 is not None and low_2 is not None and high_2 is not None:
            ranges = range_of_predictive_values((low_1, high_1), (low_2, high_2), prevalence)
            named = {
                name: Interval(value=found.value, low=low, high=high)
                for (name, found), (low, high) in zip(named.items(), ranges, strict=True)
            }
        figures = {name: estimate(found) for name, found in named.items()}
        rows.append(PredictiveValues(prevalence=prevalence, **figures))
    return tuple(rows)


def _decision_curve(labels: Labels, probabilities: Floats, bootstrap: LesionBootstrap) -> tuple[NetBenefit, ...]:
    everyone = np.ones(len(labels), bool)
    ones = np.ones((1, len(labels)))
    rows = []
    for threshold in THRESHOLD_PROBABILITIES:
        flagged = probabilities >= threshold

        def model(weights: Floats, f: npt.NDArray[np.bool_] = flagged, t: float = threshold) -> Floats:
            return net_benefit(labels, f, t, weights)

        def gain(weights: Floats, model: WeightedStatistic = model, t: float = threshold) -> Floats:
            # Within a resample: both rules are compared on the same images, so separate intervals would say less.
            return model(weights) - np.maximum(net_benefit(labels, everyone, t, weights), 0)

        rows.append(
            NetBenefit(
                threshold=threshold,
                model=estimate(bootstrap(model)),
                gain=estimate(bootstrap(gain)),
                refer_all=float(net_benefit(labels, everyone, threshold, ones)[0]),
                refer_none=0.0,
            )
        )
    return tuple(rows)


def _histology_only(images: pd.DataFrame, limits: dict[str, float], *, resamples: int) -> GroupFigures | None:
    if "dx_type" not in images:
        return None
    proven = images[(images["dx_type"] == "histo").to_numpy()]
    if not len(proven):
        return None
    return describe(proven, limits, seed=BOOTSTRAP_SEED, resamples=resamples)


def _finite(figures: dict[str, object]) -> dict[str, object]:
    return {
        name: None if isinstance(value, float) and not np.isfinite(value) else value for name, value in figures.items()
    }
