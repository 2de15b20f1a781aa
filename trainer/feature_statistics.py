"""Describe the training images by their pooled features, for a worker to tell what is unlike all of them."""

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA

from worker.engine.feature_statistics import FeatureStatistics

#: Principal components that are kept.
COMPONENTS = 64


def describe_features(features: npt.NDArray[np.floating], components: int = COMPONENTS) -> FeatureStatistics:
    """Fit probabilistic principal components.

    Args:
        features: of training images, (n, channels), n above ``components``.
        components: principal directions to keep, fewer than the channels.

    Returns:
        Their description.

    Raises:
        ValueError: there are too few images or channels.
    """
    if components >= min(features.shape):
        raise ValueError(
            f"Received: features of shape {features.shape} for {components} components. Expected: more images and more "
            "channels than components."
        )
    fitted = PCA(components, svd_solver="covariance_eigh").fit(np.asarray(features, np.float64))
    # A feature that never fires has no variance; a floor keeps its first activation from being infinitely far.
    floor = 1e-9 * max(float(fitted.explained_variance_.max()), 1e-9)
    return FeatureStatistics(
        mean=fitted.mean_,
        axes=fitted.components_,
        variances=np.maximum(fitted.explained_variance_, floor),
        rest=max(float(fitted.noise_variance_), floor),
    )
