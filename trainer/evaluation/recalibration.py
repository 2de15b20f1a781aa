"""What calibration and thresholds of its own would give a place.

That is cross-fitted: every image is judged by a calibration and thresholds that were fitted on other
lesions.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from trainer.bootstrap import LesionBootstrap
from trainer.calibration import fit_platt
from trainer.evaluation.assess import calibration_measures, counts
from trainer.evaluation.strata import share_of
from trainer.policies import BOOTSTRAP_SEED, choose_thresholds

#: What cross-fitted figures are not, for report and card.
CROSS_FIT_CAVEAT = (
    "A part of the lesions proves less than all of them, so that the thresholds of sensitivity:X that are judged here "
    "lie lower than those that are chosen on all: these have somewhat less sensitivity and more specificity than is "
    "told. The intervals leave out that thresholds chosen on other lesions would differ."
)
#: Parts of a cross-fit; fewer when a class has fewer lesions.
FOLDS = 5


def cross_fit(images: pd.DataFrame) -> dict[str, Any]:
    """Calibration and thresholds fitted on the images themselves, each image judged by a fit on other lesions.

    Args:
        images: rows with ``label``, ``lesion_id`` and ``raw_probability``.

    Returns:
        ``folds``; ``calibration`` (the measures after); ``policies`` (sensitivity and specificity over all folds, each
        with the thresholds of its folds); ``refused``: why something could not be done. With too few lesions of a class
        to fold, only ``refused``.
    """
    labels = images["label"].to_numpy()
    lesions = images["lesion_id"].to_numpy(object)
    raw = images["raw_probability"].to_numpy()
    fewest = min(counts(images)["lesions"].values())
    folds = min(FOLDS, fewest)
    if folds < 2:
        return {"refused": {"recalibration": f"{fewest} lesion of a class is too few to fit on others"}}
    calibrated = np.empty(len(images))
    called: dict[str, npt.NDArray[np.bool_]] = {}
    thresholds: dict[str, list[float]] = {}
    refused: dict[str, str] = {}
    try:
        for rest, held_out in _folds(labels, lesions, folds):
            calibration = fit_platt(labels[rest], raw[rest])
            calibrated[held_out] = calibration.apply(raw[held_out])
            chosen, not_supported = choose_thresholds(labels[rest], calibration.apply(raw[rest]), lesions[rest])
            refused |= not_supported
            for name, threshold in chosen.items():
                flags = called.setdefault(name, np.zeros(len(images), bool))
                flags[held_out] = calibrated[held_out] >= threshold
                thresholds.setdefault(name, []).append(threshold)
    except ValueError as error:
        return {"refused": {"recalibration": str(error)}}
    bootstrap = LesionBootstrap(lesions, labels, seed=BOOTSTRAP_SEED)
    return {
        "folds": folds,
        "calibration": calibration_measures(labels, calibrated, bootstrap),
        "policies": {
            name: {
                "thresholds": thresholds[name],
                "sensitivity": share_of(bootstrap, flags, labels == 1, lesions),
                "specificity": share_of(bootstrap, ~flags, labels == 0, lesions),
                "missed": int((~flags & (labels == 1)).sum()),
            }
            for name, flags in called.items()
            if name not in refused
        },
        "refused": refused,
    }


def _folds(
    labels: npt.NDArray[np.int64], lesions: npt.NDArray[np.object_], folds: int
) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """Whole lesions, each in one held-out part; both classes in every part."""
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=BOOTSTRAP_SEED)
    yield from splitter.split(labels, labels, lesions.astype(str))
