"""Fit the OOD statistics: measures of the training images that tell a worker what is no dermoscopy."""

import numpy as np
import numpy.typing as npt
from sklearn.covariance import LedoitWolf
from sklearn.preprocessing import StandardScaler

from trainer.augmentation.artefacts import draw_rim
from trainer.augmentation.augment import Augmentation
from worker.images.out_of_distribution import Floats, ImageStatistics, measure_image_statistics

#: Changes that leave an image dermoscopy: other cameras and light; and hair, a ruler, ink, blur.
_OTHER_CAMERA = Augmentation(cutout=0.0)
_WITH_ARTEFACTS = Augmentation(artefacts=0.5, cutout=0.0)
#: This share of other images lies within the limit.
LIMIT_QUANTILE = 0.99


def fit_image_statistics(inputs: npt.NDArray[np.uint8], *, seed: int) -> ImageStatistics:
    """Fit mean and covariance of the measures of images, once with a dark rim and once without.

    Without a rim, images are taken unchanged and changed once. Dermatoscopes with a round field are rare in HAM10000,
    and one Gaussian of both would be so wide that photographs pass. The covariance is shrunk a little (Ledoit & Wolf,
    2004), so that a few images do not give a singular one.

    Args:
        inputs: of training images of every diagnosis, (n, size, size, 3), uint8, RGB, at least two.
        seed: of the changes.
    """
    rng = np.random.default_rng(seed)
    size = inputs.shape[1]
    unchanged = [measure_image_statistics(image) for image in inputs]
    changed = [measure_image_statistics(_WITH_ARTEFACTS(image, size, rng)) for image in inputs]
    with_a_rim = [measure_image_statistics(draw_rim(_OTHER_CAMERA(image, size, rng), rng)) for image in inputs]
    fitted = [fit_gaussian(np.stack(measures)) for measures in (unchanged + changed, with_a_rim)]
    return ImageStatistics(
        mean=np.stack([mean for mean, _ in fitted]), precision=np.stack([each for _, each in fitted])
    )


def fit_gaussian(measures: Floats) -> tuple[Floats, Floats]:
    """Mean and inverse covariance of measures, (n, `MEASURES`)."""
    scaler = StandardScaler().fit(measures)
    fitted = LedoitWolf(assume_centered=True).fit(scaler.transform(measures))
    return scaler.mean_, fitted.precision_ / np.outer(scaler.scale_, scaler.scale_)


def distances(statistics: ImageStatistics, inputs: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Distance of each image, (n,).

    Args:
        statistics: of the training images.
        inputs: (n, size, size, 3), uint8, RGB.
    """
    return np.array([statistics.distance(image) for image in inputs])
