"""Measures of image quality. `worker.inference.quality_gate` compares them with the limits of a bundle.

They are taken on the model's input, so that one limit serves every camera.
"""

from dataclasses import dataclass

from worker.images.colour import RGBImage
from worker.images.opencv import cv2


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Measures of one image.

    Args:
        short_side: of the image file, in pixels.
        contrast: standard deviation of the grey values of the model's input, 0 to 127.5.
        sharpness: variance of its Laplacian (Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy",
            2000).
    """

    short_side: int
    contrast: float
    sharpness: float


def measure_quality(short_side: int, model_input: RGBImage) -> Quality:
    """Measure the quality of an image.

    Args:
        short_side: of the picture in its file, in pixels.
        model_input: as preprocessed, (size, size, 3).
    """
    grey = cv2.cvtColor(model_input, cv2.COLOR_RGB2GRAY)
    return Quality(
        short_side=short_side,
        contrast=_deviation(grey),
        sharpness=_deviation(cv2.Laplacian(grey, cv2.CV_32F)) ** 2,
    )


def _deviation(values: cv2.typing.MatLike) -> float:
    """Standard deviation, some times as fast as NumPy's."""
    return float(cv2.meanStdDev(values)[1][0, 0])
