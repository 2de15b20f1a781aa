"""Cross-fitting: every image is judged by a calibration and thresholds that were fitted on other lesions.

So it is told what a place would get from recalibration, and what the folds of a recipe give (`trainer.evaluation.crossfit`).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from trainer.metrics.assess import calibration_measures, counts
from trainer.metrics.subgroups import share_of
from trainer.thresholds.bootstrap import Floats, LesionBootstrap
from trainer.thresholds.calibration import fit_platt
from trainer.thresholds.policies import BOOTSTRAP_SEED, choose_thresholds
from trainer.thresholds.threshold import Labels, Lesions

#: What cross-fitted figures are not, for report and card.
CROSS_FIT_CAVEAT = (
    "A part of the lesions proves less than all of them, so that the thresholds of sensitivity:X that are judged here "
    "lie lower than those that are chosen on all: these have somewhat less sensitivity and more specificity than is "
    "told. The intervals leave out that thresholds chosen on other lesions would differ."
)
#: Folds of a cross-fit; fewer when a class has fewer lesions.
FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class JudgedByFolds:
    """Images of which each was judged by what was fitted on the other folds.

    Args:
        calibrated: (n,), probability of each image.
        called: (n,) each, by policy: whether an image was flagged.
        thresholds: of each fold, by policy.
        refused: why a policy is not judged in every fold.
    """

    calibrated: Floats
    called: dict[str, npt.NDArray[np.bool_]]
    thresholds: dict[str, list[float]]
    refused: dict[str, str]


def judge_by_folds(images: pd.DataFrame, fold: npt.NDArray[np.int64]) -> JudgedByFolds:
    """Fit calibration and thresholds on all folds but one, and judge that one by them; each in turn.

    Args:
        images: rows with ``label``, ``lesion_id`` and ``raw_probability``.
        fold: (n,), number of each image's fold; a lesion is in one of them, both classes in each.

    Raises:
        ValueError: a class is missing in what is left of a fold, or melanomas are ranked below nevi there.
    """
    labels = images["label"].to_numpy()
    lesions = images["lesion_id"].to_numpy(object)
    raw = images["raw_probability"].to_numpy()
    calibrated = np.empty(len(images))
    called: dict[str, npt.NDArray[np.bool_]] = {}
    thresholds: dict[str, list[float]] = {}
    refused: dict[str, str] = {}
    for number in np.unique(fold):
        held_out, rest = fold == number, fold != number
        calibration = fit_platt(labels[rest], raw[rest])
        calibrated[held_out] = calibration.apply(raw[held_out])
        chosen, not_supported = choose_thresholds(labels[rest], calibration.apply(raw[rest]), lesions[rest])
        refused |= not_supported
        for name, threshold in chosen.items():
            flags = called.setdefault(name, np.zeros(len(images), bool))
            flags[held_out] = calibrated[held_out] >= threshold
            thresholds.setdefault(name, []).append(threshold)
    return JudgedByFolds(calibrated=calibrated, called=called, thresholds=thresholds, refused=refused)


def describe_judged(images: pd.DataFrame, judged: JudgedByFolds, bootstrap: LesionBootstrap) -> dict[str, Any]:
    """What came of it.

    Args:
        images: as `judge_by_folds` had them.
        judged: what it gave.
        bootstrap: of the same images.

    Returns:
        ``calibration`` (the measures after); ``policies`` (sensitivity and specificity over all folds, each with the
        thresholds of its own, and melanoma lesions caught by every image); ``refused``: why a policy is not among them.
    """
    labels, lesions = images["label"].to_numpy(), images["lesion_id"].to_numpy(object)
    return {
        "calibration": calibration_measures(labels, judged.calibrated, bootstrap),
        "policies": {
            name: {
                "thresholds": judged.thresholds[name],
                "sensitivity": share_of(bootstrap, flags, labels == 1, lesions),
                "specificity": share_of(bootstrap, ~flags, labels == 0, lesions),
                "missed": int((~flags & (labels == 1)).sum()),
                "by_lesion": _caught(flags, labels, lesions),
            }
            for name, flags in judged.called.items()
            if name not in judged.refused
        },
        "refused": judged.refused,
    }


def _caught(flags: npt.NDArray[np.bool_], labels: Labels, lesions: Lesions) -> dict[str, int]:
    """Melanoma lesions, and how many of them have every image flagged, as the policies promise it."""
    every = pd.Series(flags[labels == 1]).groupby(lesions[labels == 1]).all()
    return {"caught": int(every.sum()), "lesions": len(every)}


def cross_fit(images: pd.DataFrame) -> dict[str, Any]:
    """Calibration and thresholds fitted on the images themselves, each image judged by a fit on other lesions.

    Args:
        images: rows with ``label``, ``lesion_id`` and ``raw_probability``.

    Returns:
        ``folds``, and what `describe_judged` gives. With too few lesions of a class to fold, or where a fit fails, only
        ``refused``: why.
    """
    labels = images["label"].to_numpy()
    lesions = images["lesion_id"].to_numpy(object)
    fewest = min(counts(images)["lesions"].values())
    folds = min(FOLDS, fewest)
    if folds < 2:
        return {"refused": {"recalibration": f"{fewest} lesion of a class is too few to fit on others"}}
    try:
        judged = judge_by_folds(images, _folds(labels, lesions, folds))
    except ValueError as error:
        return {"refused": {"recalibration": str(error)}}
    bootstrap = LesionBootstrap(lesions, labels, seed=BOOTSTRAP_SEED)
    return {"folds": folds, **describe_judged(images, judged, bootstrap)}


def _folds(labels: npt.NDArray[np.int64], lesions: npt.NDArray[np.object_], folds: int) -> npt.NDArray[np.int64]:
    """Number of each image's fold, (n,): whole lesions, both classes in every fold."""
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=BOOTSTRAP_SEED)
    fold = np.empty(len(labels), np.int64)
    for number, (_, held_out) in enumerate(splitter.split(labels, labels, lesions.astype(str))):
        fold[held_out] = number
    return fold
