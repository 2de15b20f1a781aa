"""How well the seven diagnoses are told apart, by a model that was trained on them."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from trainer.data.ham10000 import DIAGNOSES
from trainer.metrics.discrimination import auroc, share
from trainer.metrics.subgroups import as_json, share_of
from trainer.thresholds.bootstrap import RESAMPLES, LesionBootstrap
from trainer.thresholds.policies import BOOTSTRAP_SEED

Floats = npt.NDArray[np.float64]


def probability_columns() -> list[str]:
    """Columns of the probability of each diagnosis, in the order of `trainer.data.ham10000.DIAGNOSES`."""
    return [f"p_{dx}" for dx in DIAGNOSES]


def describe_classes(images: pd.DataFrame, *, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Balanced accuracy, and each diagnosis against all others, with lesion-clustered intervals.

    An image is given the diagnosis of the greatest probability, as the network says it: uncalibrated, and under the
    class balance of its training.

    Args:
        images: rows with ``dx``, ``lesion_id`` and `probability_columns`; a diagnosis without an image is left out.
        resamples: behind each interval.

    Returns:
        ``balanced_accuracy`` (mean sensitivity of the diagnoses), ``diagnoses`` (counts, sensitivity and AUROC of each)
        and ``confusion`` (rows: the diagnosis that is true, columns: that was said; images).
    """
    truth = images["dx"].map(DIAGNOSES.index).to_numpy(np.int64)
    probabilities = images[probability_columns()].to_numpy(np.float64)
    said = probabilities.argmax(axis=1)
    lesions = images["lesion_id"].to_numpy(object)
    bootstrap = LesionBootstrap(lesions, truth, seed=BOOTSTRAP_SEED, resamples=resamples)
    present = np.unique(truth)

    def sensitivity(number: int, weights: Floats) -> Floats:
        return share(said == number, truth == number, weights)

    diagnoses = []
    for number in present:
        rows = images[truth == number]
        is_it = (truth == number).astype(np.int64)
        column = probabilities[:, number]
        diagnoses.append(
            {
                "diagnosis": DIAGNOSES[number],
                "images": len(rows),
                "lesions": int(rows["lesion_id"].nunique()),
                "sensitivity": share_of(bootstrap, said == number, truth == number, lesions),
                "auroc": as_json(bootstrap(lambda weights, i=is_it, c=column: auroc(i, c, weights))),  # type: ignore[misc]
            }
        )
    confusion = np.zeros((len(DIAGNOSES), len(DIAGNOSES)), np.int64)
    np.add.at(confusion, (truth, said), 1)
    return {
        "balanced_accuracy": as_json(
            bootstrap(lambda weights: np.mean([sensitivity(number, weights) for number in present], axis=0))
        ),
        "diagnoses": diagnoses,
        "confusion": confusion.tolist(),
    }
