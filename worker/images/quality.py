"""Measures of image quality. `worker.inference.quality_gate` compares them with the limits of a bundle.

They are taken on the model's input, so that one limit serves every camera.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from worker.images.colour import RGBImage
from worker.images.opencv import cv2

#: Grey values of a dermatoscope's dark frame, and of light that is reflected by the skin's surface.
_DARK, _WHITE = 32, 240
#: Hairs are darker than what is beside them by this, no wider than this, and straight for twice this length at least,
#: in pixels. Lee et al., "DullRazor", Computers in Biology and Medicine 27:533 (1997), finds them alike.
_HAIR_DEPTH, _HAIR_WIDTH, _HAIR_LENGTH = 20, 9, 11
_WIDTH = cv2.getStructuringElement(cv2.MORPH_RECT, (_HAIR_WIDTH, _HAIR_WIDTH))


def _line(angle: float) -> npt.NDArray[np.uint8]:
    element = np.zeros((_HAIR_LENGTH, _HAIR_LENGTH), np.uint8)
    middle = _HAIR_LENGTH // 2
    along = np.array((np.cos(angle), np.sin(angle))) * middle
    start, end = (tuple(int(place) for place in np.rint(middle + sign * along)) for sign in (-1, 1))
    return cv2.line(element, start, end, (1,))  # type: ignore[return-value]


_LINES = tuple(_line(turn * np.pi / 8) for turn in range(8))


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Measures of one image.

    Args:
        short_side: of the image file, in pixels.
        contrast: standard deviation of the grey values of the model's input, 0 to 127.5.
        sharpness: variance of its Laplacian (Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy",
            2000).
        brightness: mean grey value outside the dark frame, 0 to 255.
        glare: share of white pixels, 0 to 1.
        frame: share of dark pixels that touch the rim of the picture, 0 to 1.
        hair: share of pixels on dark, thin, straight lines, 0 to 1.
    """

    short_side: int
    contrast: float
    sharpness: float
    brightness: float
    glare: float
    frame: float
    hair: float


def measure_quality(short_side: int, model_input: RGBImage) -> Quality:
    """Measure the quality of an image.

    Args:
        short_side: of the picture in its file, in pixels.
        model_input: as preprocessed, (size, size, 3).
    """
    grey = cv2.cvtColor(model_input, cv2.COLOR_RGB2GRAY)
    frame = _frame(grey)
    framed = float(np.count_nonzero(frame))
    clear = grey.size - framed
    return Quality(
        short_side=short_side,
        contrast=_deviation(grey),
        sharpness=_deviation(cv2.Laplacian(grey, cv2.CV_32F)) ** 2,
        brightness=cv2.mean(grey, cv2.bitwise_not(frame))[0] if clear else 0.0,
        glare=float(np.count_nonzero(grey >= _WHITE)) / grey.size,
        frame=framed / grey.size,
        hair=_hair(grey),
    )


def _frame(grey: cv2.typing.MatLike) -> cv2.typing.MatLike:
    """255 where dark pixels hang together with the rim, 0 elsewhere."""
    dark = cv2.threshold(grey, _DARK, 255, cv2.THRESH_BINARY_INV)[1]
    rim = np.concatenate([dark[0], dark[-1], dark[:, 0], dark[:, -1]])
    if not rim.any():
        return np.zeros_like(dark)
    labels = cv2.connectedComponents(dark, connectivity=4)[1]
    touching = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    kept = np.zeros(int(labels.max()) + 1, np.uint8)
    kept[touching] = 255
    kept[0] = 0
    framed: npt.NDArray[np.uint8] = kept[labels]
    return framed


def _hair(grey: cv2.typing.MatLike) -> float:
    thin = cv2.morphologyEx(grey, cv2.MORPH_BLACKHAT, _WIDTH)
    # At half the size, where the search for lines takes a quarter of the time.
    half = (thin.shape[1] // 2, thin.shape[0] // 2)
    thin = cv2.threshold(cv2.resize(thin, half, interpolation=cv2.INTER_AREA), _HAIR_DEPTH / 2, 1, cv2.THRESH_BINARY)[1]
    if not thin.any():
        return 0.0
    lines = np.zeros_like(thin)
    for line in _LINES:
        lines = cv2.bitwise_or(lines, cv2.morphologyEx(thin, cv2.MORPH_OPEN, line))
    return float(np.count_nonzero(lines)) / lines.size


def _deviation(values: cv2.typing.MatLike) -> float:
    """Standard deviation, some times as fast as NumPy's."""
    return float(cv2.meanStdDev(values)[1][0, 0])
