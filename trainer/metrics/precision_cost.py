"""What computing in fewer bits costs: area under the ROC curve, and sensitivity at equal specificity."""

import numpy as np
import pandas as pd

from trainer.metrics.discrimination import auroc, specificity_at_sensitivity
from trainer.metrics.subgroups import estimate
from trainer.thresholds.bootstrap import Floats, LesionBootstrap
from trainer.thresholds.clinic_weights import PREVALENCE, at_prevalence, clinic_weights
from trainer.thresholds.policies import BOOTSTRAP_SEED, calibrate, clinics_of
from trainer.thresholds.threshold import operating_point
from worker.inference.bundle import PolicyThreshold, PrecisionCost

#: Most that a precision may cost.
MAX_AUROC_LOSS = 0.003
MAX_SENSITIVITY_LOSS = 0.01


def compare_precisions(
    predictions: pd.DataFrame, outputs: Floats, thresholds: dict[str, PolicyThreshold]
) -> PrecisionCost:
    """Compare outputs in another precision with those in 32-bit floats, on the same images.

    Args:
        predictions: rows of a ``validation.csv``, with ``probability`` in 32-bit floats.
        outputs: (n,), probabilities in the other precision, before calibration.
        thresholds: by policy, on calibrated probabilities in 32-bit floats.
    """
    labels, before = predictions["label"].to_numpy(), predictions["probability"].to_numpy()
    lesions, clinics = predictions["lesion_id"].to_numpy(object), clinics_of(predictions)
    weights = None if clinics is None else at_prevalence(labels, clinic_weights(labels, clinics), PREVALENCE)
    bootstrap = LesionBootstrap(lesions, labels, seed=BOOTSTRAP_SEED, weights=weights)
    calibrated = calibrate(labels, before, clinics).apply(before)

    def sensitivity(scores: Floats, weights: Floats, specificity: float) -> Floats:
        # Of nevi below, seen from the other side: those that are lowest come first.
        return specificity_at_sensitivity(1 - labels, -scores, weights, sensitivity=specificity)

    differences = {}
    for name, policy in thresholds.items():
        level = operating_point(labels, calibrated, policy.threshold, clinics).specificity
        differences[name] = estimate(
            bootstrap(
                lambda weights, level=level: (  # type: ignore[misc]
                    sensitivity(outputs, weights, level) - sensitivity(before, weights, level)
                )
            )
        )
    return PrecisionCost(
        images=len(labels),
        auroc_difference=estimate(
            bootstrap(lambda weights: auroc(labels, outputs, weights) - auroc(labels, before, weights))
        ),
        sensitivity_difference=differences,
    )


def find_faults(cost: PrecisionCost) -> list[str]:
    """Name each cost that is above its limit, in a clause."""
    faults = []
    if (loss := -cost.auroc_difference.or_nan) > MAX_AUROC_LOSS:
        faults.append(f"the area under the ROC curve falls by {loss:.4f}, at most {MAX_AUROC_LOSS} is allowed")
    for policy, difference in cost.sensitivity_difference.items():
        if (loss := -difference.or_nan) > MAX_SENSITIVITY_LOSS:
            faults.append(
                f"at the specificity of {policy} the sensitivity falls by {loss:.4f}, at most {MAX_SENSITIVITY_LOSS} "
                "is allowed"
            )
    return faults if np.isfinite(cost.auroc_difference.or_nan) else ["no area under the ROC curve can be computed"]
