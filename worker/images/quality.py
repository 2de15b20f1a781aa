"""Measures of image quality. `worker.inference.quality_gate` compares them with the limits of a bundle.

They are taken on the model's input, so that one limit serves every camera.
"""

from dataclasses import dataclass

import numpy as np

from worker.images.decode import RGBImage
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


def measure_quality(image: RGBImage, model_input: RGBImage) -> Quality:
    """Measure the quality of an image.

    Args:
        image: as decoded, (height, width, 3).
        model_input: as preprocessed, (size, size, 3).
    """
    grey = cv2.cvtColor(model_input, cv2.COLOR_RGB2GRAY)
    return Quality(
        short_side=min(image.shape[:2]),
        contrast=float(np.std(grey)),
        sharpness=float(cv2.Laplacian(grey, cv2.CV_32F).var()),
    )
