"""Make probabilities mean what they say, at the prevalence of the data they are fitted on."""

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from worker.bundle import Calibration, logit

#: Inverse strength of the penalty: so weak that this is plain maximum likelihood.
_WEAK_PENALTY = 1e6


def fit_platt(labels: npt.NDArray[np.int64], raw: npt.NDArray[np.float64]) -> Calibration:
    """Fit Platt scaling on validation images.

    Balanced batches and the focal loss's alpha shift the network's output away from the share of melanomas; a slope and
    an intercept on the log-odds bring it back and keep the order, so no AUC changes.

    As in Platt's paper the labels are pulled a little towards each other, (N + 1) / (N + 2), so that the fit exists
    when a threshold separates the classes perfectly.

    Args:
        labels: (n,), 1 for melanoma and 0 for nevus; both must occur.
        raw: (n,), the network's outputs.

    Returns:
        The calibration.

    Raises:
        ValueError: a class is missing, the outputs are all equal, or they rank melanomas below nevi (a slope that is
            not positive).
    """
    odds = np.array([[logit(value)] for value in raw])
    if np.ptp(raw) == 0:
        raise ValueError("Received: the same output for every image. Expected: a model that has learned.")
    melanomas = int((labels == 1).sum())
    nevi = len(labels) - melanomas
    if not (melanomas and nevi):
        raise ValueError(
            f"Received: {melanomas} melanomas and {nevi} nevi. Expected: at least one of each class to calibrate on."
        )
    target = np.where(labels == 1, (melanomas + 1) / (melanomas + 2), 1 / (nevi + 2))
    # Soft labels as each image twice, once with either label, weighted.
    model = LogisticRegression(C=_WEAK_PENALTY).fit(
        np.concatenate((odds, odds)),
        np.repeat([1, 0], len(labels)),
        sample_weight=np.concatenate((target, 1 - target)),
    )
    slope, intercept = float(model.coef_[0, 0]), float(model.intercept_[0])
    if slope <= 0:
        raise ValueError(
            f"Received: outputs that rank melanomas below nevi (Platt slope {slope:.3f}). Expected: a model that has "
            "learned; train longer or check the labels."
        )
    return Calibration(method="platt", slope=slope, intercept=intercept)
