"""Weights that let each clinic count the same, however many images it gave.

Thresholds and calibration for many clinics are chosen on a mixture of them. Without weights the largest one decides:
one that sends melanomas only would pull every threshold to its own.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
#: Clinic of each image, (n,). None: every image counts the same.
Clinics = npt.NDArray[np.object_] | None

#: Share of melanomas that probabilities are calibrated at when clinics are weighted: that of HAM10000's melanomas and
#: nevi, as of the bundles before. The mixture of the clinics has no share of its own that would mean anything.
PREVALENCE = 0.142


def clinic_weights(labels: Labels, clinics: Clinics) -> Floats:
    """Weight of each image, so that within each class the clinics that have it weigh the same.

    Args:
        labels: (n,), 1 for melanoma and 0 for nevus.
        clinics: of each image.

    Returns:
        (n,). The weights of a class add up to its number of images; all are 1 without clinics.
    """
    weights = np.ones(len(labels))
    if clinics is None:
        return weights
    for label in (0, 1):
        of_class = np.flatnonzero(labels == label)
        if len(of_class):
            _, clinic, counts = np.unique(clinics[of_class].astype(str), return_inverse=True, return_counts=True)
            weights[of_class] = len(of_class) / (len(counts) * counts[clinic])
    return weights


def at_prevalence(labels: Labels, weights: Floats, prevalence: float) -> Floats:
    """The weights, scaled by class so that melanomas are a given share of their sum, (n,)."""
    scaled = weights.copy()
    for label, share in ((1, prevalence), (0, 1 - prevalence)):
        of_class = labels == label
        scaled[of_class] *= share * len(labels) / weights[of_class].sum()
    return scaled


def effective_count(weights: Floats) -> float:
    """Number of equally weighted cases that say as much (Kish, "Survey sampling", 1965)."""
    return float(weights.sum() ** 2 / (weights**2).sum())
