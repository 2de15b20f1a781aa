"""How well a model that was trained on seven diagnoses tells them apart."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from trainer.data.diagnoses import DIAGNOSES
from trainer.metrics.discrimination import auroc, share
from trainer.metrics.figures import DiagnosisFigures, SevenClasses
from trainer.metrics.subgroups import estimate, share_of
from trainer.thresholds.bootstrap import RESAMPLES, LesionBootstrap
from trainer.thresholds.policies import BOOTSTRAP_SEED

Floats = npt.NDArray[np.float64]


def probability_columns() -> list[str]:
    """Columns of the probability of each diagnosis, in the order of `trainer.data.readers.ham10000.DIAGNOSES`."""
    return [f"p_{dx}" for dx in DIAGNOSES]


def describe_classes(images: pd.DataFrame, *, resamples: int = RESAMPLES) -> SevenClasses:
    """Balanced accuracy, and each diagnosis against all others, with lesion-clustered intervals.

    An image is given the diagnosis of the greatest network output, which is uncalibrated and depends on the class
    balance of the training.

    Args:
        images: rows with ``dx``, ``lesion_id`` and `probability_columns`. A diagnosis without an image is left out.
        resamples: behind each interval.
    """
    truth = images["dx"].map(DIAGNOSES.index).to_numpy(np.int64)
    probabilities = images[probability_columns()].to_numpy(np.float64)
    predicted = probabilities.argmax(axis=1)
    lesions = images["lesion_id"].to_numpy(object)
    bootstrap = LesionBootstrap(lesions, truth, seed=BOOTSTRAP_SEED, resamples=resamples)
    present = np.unique(truth)

    def sensitivity(number: int, weights: Floats) -> Floats:
        return share(predicted == number, truth == number, weights)

    diagnoses = []
    for number in present:
        rows = images[truth == number]
        is_it = (truth == number).astype(np.int64)
        column = probabilities[:, number]
        diagnoses.append(
            DiagnosisFigures(
                diagnosis=DIAGNOSES[number],
                images=len(rows),
                lesions=rows["lesion_id"].nunique(),
                sensitivity=share_of(bootstrap, predicted == number, truth == number, lesions),
                auroc=estimate(bootstrap(lambda weights, i=is_it, c=column: auroc(i, c, weights))),  # type: ignore[misc]
            )
        )
    confusion = np.zeros((len(DIAGNOSES), len(DIAGNOSES)), np.int64)
    np.add.at(confusion, (truth, predicted), 1)
    return SevenClasses(
        balanced_accuracy=estimate(
            bootstrap(lambda weights: np.mean([sensitivity(number, weights) for number in present], axis=0))
        ),
        diagnoses=tuple(diagnoses),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )
