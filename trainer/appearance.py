"""Describe what the training images look like, for a worker to tell what is no dermoscopy."""

import numpy as np
import numpy.typing as npt
from sklearn.covariance import LedoitWolf
from sklearn.preprocessing import StandardScaler

from trainer.augment import Augmentation
from worker.images.appearance import Appearance, measure_appearance

#: Changes under which an image still is dermoscopy: other cameras and light, hair, a ruler, ink, a dark rim, blur.
_CHANGES = Augmentation(artefacts=0.5, cutout=0.0)
#: The limit is the distance below which this share of the validation images lies.
LIMIT_QUANTILE = 0.999


def describe_appearance(inputs: npt.NDArray[np.uint8], *, seed: int) -> Appearance:
    """Fit mean and covariance to the measures of images as they are, and changed once each.

    The covariance is shrunk a little (Ledoit & Wolf, 2004), so that a few images do not make a singular one.

    Args:
        inputs: of training images of every diagnosis, (n, size, size, 3), uint8, RGB, at least two.
        seed: of the changes.
    """
    rng = np.random.default_rng(seed)
    size = inputs.shape[1]
    changed = (_CHANGES(image, size, rng) for image in inputs)
    measures = np.stack([measure_appearance(image) for images in (inputs, changed) for image in images])
    scaler = StandardScaler().fit(measures)
    fitted = LedoitWolf(assume_centered=True).fit(scaler.transform(measures))
    return Appearance(mean=scaler.mean_, precision=fitted.precision_ / np.outer(scaler.scale_, scaler.scale_))


def distances(appearance: Appearance, inputs: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Distance of each image, (n,).

    Args:
        appearance: of the training images.
        inputs: (n, size, size, 3), uint8, RGB.
    """
    return np.array([appearance.distance(image) for image in inputs])
