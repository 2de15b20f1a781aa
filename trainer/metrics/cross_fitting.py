"""Cross-fitting: each image is flagged by a calibration and thresholds that were fitted on other lesions.

It shows what a clinic would get from recalibration, and what the folds of a recipe give. The folds are drawn here
(`cross_fit`), or are the runs that held them out (`cross_fit_folds`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from trainer.data.counts import count_classes
from trainer.metrics.assess import calibration_measures
from trainer.metrics.discrimination import auroc
from trainer.metrics.figures import Recalibrated, Refusal
from trainer.metrics.subgroups import estimate, share_of
from trainer.thresholds.bootstrap import Floats, LesionBootstrap
from trainer.thresholds.calibration import fit_platt
from trainer.thresholds.clinic_weights import PREVALENCE, at_prevalence, clinic_weights
from trainer.thresholds.policies import BOOTSTRAP_SEED, calibrate, choose_thresholds, clinics_of
from trainer.thresholds.threshold import Labels, Lesions
from worker.inference.metrics import (
    CalibrationLine,
    CrossFit,
    CrossFitPolicy,
    FoldMetrics,
    FoldRun,
    FoldsCrossFit,
    LesionsCaught,
    SensitivitySpecificity,
)

#: Limitation of cross-fitted figures, for report and card.
CROSS_FIT_CAVEAT = (
    "A part of the lesions proves less than all of them. So the cross-fitted thresholds of sensitivity:X are lower "
    "than those chosen on all lesions, which have somewhat less sensitivity and more specificity than stated. The "
    "intervals do not include that thresholds chosen on other lesions would differ."
)
#: Folds of a cross-fit. Fewer when a class has fewer lesions.
FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class CrossFitPredictions:
    """Images, each calibrated and flagged by a fit on the other folds.

    Args:
        calibrated: (n,), probability of each image.
        flagged: (n,) by policy: whether an image is flagged.
        thresholds: of each fold, by policy.
        refused: by policy, why a fold has no threshold for it.
    """

    calibrated: Floats
    flagged: dict[str, npt.NDArray[np.bool_]]
    thresholds: dict[str, list[float]]
    refused: dict[str, str]


def predict_by_folds(images: pd.DataFrame, fold: npt.NDArray[np.int64]) -> CrossFitPredictions:
    """For each fold, fit calibration and thresholds on the other folds, and apply them to it.

    Args:
        images: rows with ``label``, ``lesion_id``, ``raw_probability`` and, where they are clinics, ``fold``.
        fold: (n,), number of each image's fold. Each fold holds whole lesions and both classes.

    Raises:
        InputError: without a fold a class is missing, or melanomas are ranked below nevi.
    """
    labels = images["label"].to_numpy()
    lesions = images["lesion_id"].to_numpy(object)
    raw, clinics = images["raw_probability"].to_numpy(), clinics_of(images)
    calibrated = np.empty(len(images))
    flagged: dict[str, npt.NDArray[np.bool_]] = {}
    thresholds: dict[str, list[float]] = {}
    refused: dict[str, str] = {}
    for number in np.unique(fold):
        held_out, rest = fold == number, fold != number
        others = None if clinics is None else clinics[rest]
        calibration = calibrate(labels[rest], raw[rest], others)
        calibrated[held_out] = calibration.apply(raw[held_out])
        chosen, not_supported = choose_thresholds(labels[rest], calibration.apply(raw[rest]), lesions[rest], others)
        refused |= not_supported
        for name, threshold in chosen.items():
            flags = flagged.setdefault(name, np.zeros(len(images), bool))
            flags[held_out] = calibrated[held_out] >= threshold
            thresholds.setdefault(name, []).append(threshold)
    return CrossFitPredictions(calibrated=calibrated, flagged=flagged, thresholds=thresholds, refused=refused)


def cross_fit(images: pd.DataFrame) -> Recalibrated:
    """Cross-fit calibration and thresholds on folds that are drawn from the images.

    Args:
        images: rows with ``label``, ``lesion_id`` and ``raw_probability``.

    Returns:
        The figures. With too few lesions of a class, or where a fit fails, only why.
    """
    labels, lesions = images["label"].to_numpy(), images["lesion_id"].to_numpy(object)
    counts = count_classes(images).lesions
    fewest = min(counts.melanoma, counts.nevus)
    folds = min(FOLDS, fewest)
    if folds < 2:
        return Refusal(refused={"recalibration": f"a class has only {fewest} lesion, too few to fit on others"})
    try:
        predicted = predict_by_folds(images, _draw_folds(labels, lesions, folds))
    except ValueError as error:
        return Refusal(refused={"recalibration": str(error)})
    bootstrap = LesionBootstrap(lesions, labels, seed=BOOTSTRAP_SEED)
    return CrossFit(
        folds=folds,
        calibration=calibration_measures(labels, predicted.calibrated, bootstrap),
        policies=_policies(images, predicted, bootstrap),
        refused=predicted.refused,
    )


def cross_fit_folds(predictions: pd.DataFrame, folds: Sequence[FoldRun]) -> FoldsCrossFit:
    """Cross-fit on the folds of a recipe, each predicted by the run that held it out.

    This is not nested cross-validation: the networks behind a fold's thresholds were trained on the fold, which makes
    its figures a little too good; and the intervals do not include that other trainings would differ.

    Args:
        predictions: rows with ``label``, ``lesion_id``, ``probability`` (the network's output) and ``fold``.
        folds: the runs.

    Raises:
        InputError: as `predict_by_folds`.
    """
    images = predictions.rename(columns={"probability": "raw_probability"})
    numbers = images["fold"].map({fold.fold: number for number, fold in enumerate(folds)}).to_numpy().astype(np.int64)
    predicted = predict_by_folds(images, numbers)
    each = []
    for number, fold in enumerate(folds):
        part = images[images["fold"] == fold.fold]
        labels, raw = part["label"].to_numpy(), part["raw_probability"].to_numpy()
        line = fit_platt(labels, raw)
        each.append(
            FoldMetrics(
                **dict(fold),
                counts=count_classes(part),
                auroc=float(roc_auc_score(labels, raw)),
                calibration=CalibrationLine(slope=line.slope, intercept=line.intercept),
                policies=_at_frozen_thresholds(part, predicted, numbers == number),
            )
        )
    labels, lesions = images["label"].to_numpy(), images["lesion_id"].to_numpy(object)
    bootstrap = LesionBootstrap(lesions, labels, seed=BOOTSTRAP_SEED, weights=_weights(images, labels))
    return FoldsCrossFit(
        folds=tuple(each),
        mean_auroc=float(np.mean([fold.auroc for fold in each])),
        counts=count_classes(images),
        auroc=estimate(bootstrap(lambda weights: auroc(labels, predicted.calibrated, weights))),
        calibration=calibration_measures(labels, predicted.calibrated, bootstrap),
        policies=_policies(images, predicted, bootstrap),
        refused=predicted.refused,
    )


def _weights(images: pd.DataFrame, labels: Labels) -> Floats | None:
    """Weights of the images in figures over all clinics, as in the choice of thresholds."""
    clinics = clinics_of(images)
    return None if clinics is None else at_prevalence(labels, clinic_weights(labels, clinics), PREVALENCE)


def _at_frozen_thresholds(
    part: pd.DataFrame, predicted: CrossFitPredictions, of_fold: npt.NDArray[np.bool_]
) -> dict[str, SensitivitySpecificity]:
    """What each policy gives on a fold, at thresholds that were chosen on the other folds."""
    labels, lesions = part["label"].to_numpy(), part["lesion_id"].to_numpy(object)
    bootstrap = LesionBootstrap(lesions, labels, seed=BOOTSTRAP_SEED)
    return {
        name: SensitivitySpecificity(
            sensitivity=share_of(bootstrap, flags[of_fold], labels == 1, lesions),
            specificity=share_of(bootstrap, ~flags[of_fold], labels == 0, lesions),
        )
        for name, flags in predicted.flagged.items()
        if name not in predicted.refused
    }


def _policies(
    images: pd.DataFrame, predicted: CrossFitPredictions, bootstrap: LesionBootstrap
) -> dict[str, CrossFitPolicy]:
    """What each policy gives over all folds, each flagged by its own thresholds."""
    labels, lesions = images["label"].to_numpy(), images["lesion_id"].to_numpy(object)
    return {
        name: CrossFitPolicy(
            thresholds=tuple(predicted.thresholds[name]),
            sensitivity=share_of(bootstrap, flags, labels == 1, lesions),
            specificity=share_of(bootstrap, ~flags, labels == 0, lesions),
            missed=int((~flags & (labels == 1)).sum()),
            by_lesion=_caught(flags, labels, lesions),
        )
        for name, flags in predicted.flagged.items()
        if name not in predicted.refused
    }


def _caught(flags: npt.NDArray[np.bool_], labels: Labels, lesions: Lesions) -> LesionsCaught:
    every = pd.Series(flags[labels == 1]).groupby(lesions[labels == 1]).all()
    return LesionsCaught(caught=int(every.sum()), lesions=len(every))


def _draw_folds(labels: Labels, lesions: Lesions, folds: int) -> npt.NDArray[np.int64]:
    """Number of each image's fold, (n,): whole lesions, both classes in every fold."""
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=BOOTSTRAP_SEED)
    fold = np.empty(len(labels), np.int64)
    for number, (_, held_out) in enumerate(splitter.split(labels, labels, lesions.astype(str))):
        fold[held_out] = number
    return fold
