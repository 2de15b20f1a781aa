"""What a run freezes on its validation images: the calibration, and the threshold of each triage policy."""

from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from trainer.errors import TooFewLesionsError
from trainer.thresholds.calibration import fit_platt
from trainer.thresholds.threshold import (
    Floats,
    Labels,
    Lesions,
    lesion_sensitivity,
    operating_point,
    sensitivity_band,
    sensitivity_threshold,
    youden_band,
    youden_threshold,
)
from worker.inference.bundle import Calibration, PolicyThreshold

#: The policy that a report looks closest at.
YOUDEN = "youden"
#: Sensitivities that a policy may promise. 92 validation melanoma lesions allow 0, 4 and 7 misses.
SENSITIVITIES = (0.95, 0.90, 0.85)
#: What the bound of a proven sensitivity does not cover, for report and card.
BOUND_CAVEAT = (
    "The bound takes the model as given, but the same lesions chose which epoch or which run was kept: it is somewhat "
    "too good, and the results on other images say what came of it."
)
#: The same where other networks made the predictions that thresholds are chosen on.
OUT_OF_FOLD_CAVEAT = (
    "Out-of-fold: each image outside test was predicted by a network that had not seen it, trained by the same recipe "
    "on fewer lesions. That the thresholds fit this network too is taken for granted, and the recipe may have been "
    "chosen on a part of these lesions, so that the bound is somewhat too good; the results on other images "
    "say what came of it."
)
#: Seed of every resampling; fixed, so that a report can be made again.
BOOTSTRAP_SEED = 20_260


@dataclass(frozen=True, kw_only=True)
class Policies:
    """Policies by name.

    Args:
        thresholds: the numbers of each policy that the data support, on the probabilities they were chosen on.
        refused: why each of the others is not among them.
    """

    thresholds: dict[str, PolicyThreshold]
    refused: dict[str, str]


def choose_thresholds(
    labels: Labels, probabilities: Floats, lesions: Lesions
) -> tuple[dict[str, float], dict[str, str]]:
    """The threshold of every policy that the data support.

    Args:
        labels: (n,), 1 for melanoma and 0 for nevus; both must occur.
        probabilities: (n,), calibrated.
        lesions: (n,), lesion of each image.

    Returns:
        Thresholds by policy, ``youden`` first, then the sensitivities from high to low; and why each of the others is
        not among them.

    Raises:
        ValueError: a class is missing.
    """
    thresholds, refused = {YOUDEN: youden_threshold(labels, probabilities)}, {}
    for target in SENSITIVITIES:
        try:
            thresholds[_name(target)] = sensitivity_threshold(labels, probabilities, lesions, target=target)
        except TooFewLesionsError as error:
            refused[_name(target)] = str(error)
    return thresholds, refused


def choose_policies(labels: Labels, probabilities: Floats, lesions: Lesions) -> Policies:
    """The threshold and the borderline band of every policy that the data support; see `choose_thresholds`."""
    thresholds, refused = choose_thresholds(labels, probabilities, lesions)
    bands = {YOUDEN: youden_band(labels, probabilities, lesions, seed=BOOTSTRAP_SEED)}
    for target in SENSITIVITIES:
        if _name(target) in thresholds:
            bands[_name(target)] = sensitivity_band(labels, probabilities, lesions, target=target, seed=BOOTSTRAP_SEED)
    return Policies(
        thresholds={
            name: PolicyThreshold(
                borderline_threshold=bands[name],
                by_lesion=lesion_sensitivity(labels, probabilities, lesions, threshold),
                **asdict(operating_point(labels, probabilities, threshold)),
            )
            for name, threshold in thresholds.items()
        },
        refused=refused,
    )


def _name(target: float) -> str:
    return f"sensitivity:{target:.2f}"


def fit_policies_on_validation(run: Path) -> tuple[Calibration, Policies]:
    """As `freeze`, on what a run has in ``validation.csv``: its own predictions, or those of its folds.

    Args:
        run: the run folder.
    """
    validation = pd.read_csv(run / "validation.csv")
    return freeze(
        validation["label"].to_numpy(), validation["probability"].to_numpy(), validation["lesion_id"].to_numpy(object)
    )


def freeze(labels: Labels, raw: Floats, lesions: Lesions) -> tuple[Calibration, Policies]:
    """Fit a calibration, and choose policies on the probabilities that it gives.

    Args:
        labels: (n,), 1 for melanoma and 0 for nevus; both must occur.
        raw: (n,), the network's outputs.
        lesions: (n,), lesion of each image.

    Raises:
        ValueError: a class is missing, or melanomas are ranked below nevi.
    """
    calibration = fit_platt(labels, raw)
    return calibration, choose_policies(labels, calibration.apply(raw), lesions)
