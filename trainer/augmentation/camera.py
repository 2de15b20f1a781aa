"""Change what tells one clinic's images from another's: resolution, compression, sharpness, colour.

A network trained on several sources may learn the source instead of the lesion, where one source has more melanomas.
Each change is drawn by itself, so that an image gets none, one or several of them.
"""

import numpy as np

from worker.images.colour import RGBImage
from worker.images.opencv import cv2

#: Probability of each change.
_RESOLUTION, _JPEG, _SHARPNESS, _GAMMA, _HUE = 0.4, 0.5, 0.25, 0.4, 0.3
#: Least share of the pixels of a side that is kept.
_LEAST_RESOLUTION = 0.35
#: JPEG qualities.
_QUALITY = (25, 96)
#: Greatest turn of the hue, in OpenCV's units of two degrees.
_HUE_TURN = 5.0


def change_camera(image: RGBImage, rng: np.random.Generator) -> RGBImage:
    """Draw these changes on an image.

    Args:
        image: (height, width, 3), uint8, RGB.
        rng: random numbers.

    Returns:
        An image of the same shape.
    """
    if rng.random() < _GAMMA:
        levels = np.linspace(0, 1, 256) ** np.exp(rng.uniform(-0.35, 0.35))
        image = np.asarray(cv2.LUT(image, np.rint(255 * levels).astype(np.uint8)), np.uint8)
    if rng.random() < _HUE:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(np.int16) + round(rng.uniform(-_HUE_TURN, _HUE_TURN))) % 180
        image = np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)
    if rng.random() < _RESOLUTION:
        height, width = image.shape[:2]
        kept = rng.uniform(_LEAST_RESOLUTION, 0.9)
        small = cv2.resize(image, (round(width * kept), round(height * kept)), interpolation=cv2.INTER_AREA)
        how = cv2.INTER_LINEAR if rng.random() < 0.5 else cv2.INTER_CUBIC
        image = np.asarray(cv2.resize(small, (width, height), interpolation=how), np.uint8)
    if rng.random() < _SHARPNESS:
        smooth = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 1.5))
        # From the smooth image, over the image itself, to a sharpened one.
        weight = rng.uniform(0, 2)
        image = np.asarray(cv2.addWeighted(image, weight, smooth, 1 - weight, 0), np.uint8)
    if rng.random() < _JPEG:
        encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(*_QUALITY))])[1]
        image = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)
    return image
