"""Calibration and the threshold of each triage policy, fitted on validation images."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from trainer.config import SOURCE_FOLD
from trainer.errors import TooFewLesionsError
from trainer.run_folder import RunFolder, read_predictions
from trainer.thresholds.calibration import fit_platt
from trainer.thresholds.clinic_weights import PREVALENCE, Clinics, at_prevalence, clinic_weights
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

#: The default policy, which a report examines most closely.
YOUDEN = "youden"
#: Sensitivities that a policy may prove. 92 validation melanoma lesions allow 0, 4 and 7 misses.
SENSITIVITIES = (0.95, 0.90, 0.85)
#: Limitation of the bound of a proven sensitivity, for report and card.
BOUND_CAVEAT = (
    "The bound is a little too good, because the same lesions decided which epoch or which run was kept. The results "
    "on other images show the effect."
)
#: The same for thresholds that were chosen on predictions of other networks.
OUT_OF_FOLD_CAVEAT = (
    "Out-of-fold: each of these images was predicted by a network that had not seen it, trained by the same recipe "
    "on fewer lesions. It is assumed that the thresholds fit this network too. The recipe may have been chosen on a "
    "part of these lesions, so that the bound is a little too good. The results on other images show the effect."
)
#: Seed of every resampling. It is fixed, so that a report can be made again.
BOOTSTRAP_SEED = 20_260


@dataclass(frozen=True, kw_only=True)
class Policies:
    """Policies by name.

    Args:
        thresholds: the numbers of each policy that the data support.
        refused: by policy, why the data do not support it.
    """

    thresholds: dict[str, PolicyThreshold]
    refused: dict[str, str]


def choose_thresholds(
    labels: Labels, probabilities: Floats, lesions: Lesions, clinics: Clinics = None
) -> tuple[dict[str, float], dict[str, str]]:
    """The threshold of every policy that the data support.

    Args:
        labels: (n,), 1 for melanoma and 0 for nevus. Both must occur.
        probabilities: (n,), calibrated.
        lesions: (n,), lesion of each image.
        clinics: (n,), clinic of each image, which then weigh the same.

    Returns:
        Thresholds by policy, ``youden`` first, then the sensitivities from high to low; and why each other policy is
        refused.

    Raises:
        InputError: a class is missing.
    """
    thresholds, refused = {YOUDEN: youden_threshold(labels, probabilities, clinics)}, {}
    for target in SENSITIVITIES:
        try:
            thresholds[_name(target)] = sensitivity_threshold(
                labels, probabilities, lesions, target=target, clinics=clinics
            )
        except TooFewLesionsError as error:
            refused[_name(target)] = str(error)
    return thresholds, refused


def choose_policies(labels: Labels, probabilities: Floats, lesions: Lesions, clinics: Clinics = None) -> Policies:
    """The threshold and the borderline band of every policy that the data support, see `choose_thresholds`."""
    thresholds, refused = choose_thresholds(labels, probabilities, lesions, clinics)
    bands = {YOUDEN: youden_band(labels, probabilities, lesions, seed=BOOTSTRAP_SEED, clinics=clinics)}
    for target in SENSITIVITIES:
        if _name(target) in thresholds:
            bands[_name(target)] = sensitivity_band(
                labels, probabilities, lesions, target=target, seed=BOOTSTRAP_SEED, clinics=clinics
            )
    return Policies(
        thresholds={
            name: PolicyThreshold(
                borderline_threshold=bands[name],
                by_lesion=lesion_sensitivity(labels, probabilities, lesions, threshold, clinics),
                **asdict(operating_point(labels, probabilities, threshold, clinics)),
            )
            for name, threshold in thresholds.items()
        },
        refused=refused,
    )


def _name(target: float) -> str:
    return f"sensitivity:{target:.2f}"


def fit_policies_on_validation(run: Path) -> tuple[Calibration, Policies]:
    """As `fit_policies`, on a run's predictions: its own or those of its folds, in the precision that it is served in.

    Args:
        run: the run folder.
    """
    validation = read_predictions(RunFolder(run).chosen_predictions())
    return fit_policies(
        validation["label"].to_numpy(),
        validation["probability"].to_numpy(),
        validation["lesion_id"].to_numpy(object),
        clinics_of(validation),
    )


def clinics_of(predictions: pd.DataFrame) -> Clinics:
    """The clinics that weigh the same, where the folds are clinics. None for other predictions.

    Args:
        predictions: rows of a ``validation.csv``, with ``fold`` where runs of folds made them.
    """
    if "fold" not in predictions or not predictions["fold"].astype(str).str.startswith(SOURCE_FOLD).all():
        return None
    return predictions["fold"].to_numpy(object)


def calibrate(labels: Labels, raw: Floats, clinics: Clinics = None) -> Calibration:
    """Fit a calibration; with clinics on their mixture, at the share of melanomas of `PREVALENCE`.

    Raises:
        InputError: as `fit_platt`.
    """
    if clinics is None or len(np.unique(labels)) < 2:
        return fit_platt(labels, raw)
    return fit_platt(labels, raw, at_prevalence(labels, clinic_weights(labels, clinics), PREVALENCE))


def fit_policies(
    labels: Labels, raw: Floats, lesions: Lesions, clinics: Clinics = None
) -> tuple[Calibration, Policies]:
    """Fit a calibration, and choose policies on the probabilities that it gives.

    Args:
        labels: (n,), 1 for melanoma and 0 for nevus. Both must occur.
        raw: (n,), the network's outputs.
        lesions: (n,), lesion of each image.
        clinics: (n,), clinic of each image, which then weigh the same.

    Raises:
        InputError: a class is missing, or melanomas are ranked below nevi.
    """
    calibration = calibrate(labels, raw, clinics)
    return calibration, choose_policies(labels, calibration.apply(raw), lesions, clinics)
