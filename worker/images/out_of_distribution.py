"""Whether an image looks like dermoscopy at all: a letter, a screenshot or an X-ray gets no probability.

The network cannot tell by its own features: it has seen nothing but dermoscopy, and a page of text leaves them as cold
as an unremarkable nevus does (docs/decisions/0011-unlike-dermoscopy.md). So colours, layout and coarseness of the
model's input are measured, and compared with those of the training images by Mahalanobis' distance.
"""

import io
import math
from dataclasses import dataclass
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from worker.errors import BundleError
from worker.images.decode import RGBImage
from worker.images.opencv import cv2

Floats = npt.NDArray[np.float64]

#: Levels of the Laplacian pyramid (Burt & Adelson, 1983) whose energy is measured, from the finest.
_LEVELS = 5
#: Measures of one image.
MEASURES = 13 + _LEVELS
#: Keep logarithms finite for flat images, in units of CIELAB; and the mean hue calm where there is hardly any colour.
_FLAT, _FLAT_LEVEL, _HARDLY_COLOURED = 0.5, 0.2, 0.5
#: From OpenCV's 8-bit CIELAB to CIELAB's own units.
_SCALE, _OFFSET = np.array((100 / 255, 1, 1)), np.array((0, 128, 128))
#: Shares of the pixels by whose chroma the colours are described.
_CHROMA = (0.05, 0.95)


def measure_appearance(model_input: RGBImage) -> Floats:
    """Measure colours, layout and coarseness, in CIELAB.

    Args:
        model_input: as preprocessed, (size, size, 3), uint8, RGB.

    Returns:
        (`MEASURES`,): mean and logarithm of the deviation of each of L, a, b; by how much the middle differs from the
        rim in each; the logarithm of the lightness' energy at each level of detail; the logarithms of low and high
        chroma; and the mean direction of the hue, weighted by chroma.
    """
    # In 8 bits, four times as fast as in floats; what follows from it is brought to CIELAB's units.
    lab = cv2.cvtColor(model_input, cv2.COLOR_RGB2LAB)
    level, deviation = (part.ravel() for part in cv2.meanStdDev(lab))
    size = len(lab)
    middle, rim = size // 4, size // 8
    centre = np.array(cv2.mean(lab[middle:-middle, middle:-middle])[:3])
    inside = lab[rim:-rim, rim:-rim]
    share = (len(inside) / size) ** 2
    around = (level - share * np.array(cv2.mean(inside)[:3])) / (1 - share)
    mean = level * _SCALE - _OFFSET
    # Every second pixel of every second row says as much, in a quarter of the time.
    red_green, yellow_blue = (lab[::2, ::2, axis].astype(np.float32) - 128 for axis in (1, 2))
    chroma = np.sort(np.hypot(red_green, yellow_blue), axis=None)
    return np.concatenate(
        [
            mean,
            np.log(deviation * _SCALE + _FLAT),
            (centre - around) * _SCALE,
            np.log(_detail(lab[..., 0].astype(np.float32)) * _SCALE[0] + _FLAT_LEVEL),
            np.log1p([chroma[int(rank * (len(chroma) - 1))] for rank in _CHROMA]),
            mean[1:] / (float(chroma.mean()) + _HARDLY_COLOURED),
        ]
    )


def _detail(lightness: npt.NDArray[np.float32]) -> Floats:
    """Standard deviation of each level of the Laplacian pyramid, (`_LEVELS`,)."""
    found = []
    for _ in range(_LEVELS):
        smaller = cv2.pyrDown(lightness)
        height, width = lightness.shape
        detail = lightness - cv2.pyrUp(smaller, dstsize=(width, height))
        found.append(float(cv2.meanStdDev(detail)[1][0, 0]))
        lightness = smaller  # type: ignore[assignment]
    return np.array(found)


@dataclass(frozen=True, kw_only=True)
class Appearance:
    """What the training images look like, in a few looks: a dark rim, for one, makes another picture of the same skin.

    Args:
        mean: of the measures of each look, (looks, `MEASURES`).
        precision: inverse of the measures' covariance, (looks, `MEASURES`, `MEASURES`).
    """

    mean: Floats
    precision: Floats

    def distance(self, model_input: RGBImage) -> float:
        """Mahalanobis' distance of an image from the nearest look; about the root of `MEASURES` for one like it.

        Args:
            model_input: as preprocessed, (size, size, 3), uint8, RGB.
        """
        offsets = measure_appearance(model_input) - self.mean
        squares = np.einsum("li,lij,lj->l", offsets, self.precision, offsets)
        return math.sqrt(max(float(squares.min()), 0.0))

    def to_bytes(self) -> bytes:
        """An ``.npz`` of plain arrays."""
        file = io.BytesIO()
        np.savez(file, mean=self.mean, precision=self.precision)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Appearance":
        """Read what `to_bytes` wrote; nothing in it is executed.

        Raises:
            BundleError: it is not that.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                mean, precision = (np.asarray(arrays[name], np.float64) for name in ("mean", "precision"))
        except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
            raise _not_understood(type(error).__name__) from None
        looks = len(mean) if mean.ndim else 0
        if not looks or mean.shape != (looks, MEASURES) or precision.shape != (looks, MEASURES, MEASURES):
            raise _not_understood(f"shapes {mean.shape} and {precision.shape}")
        if not (np.isfinite(mean).all() and np.isfinite(precision).all()):
            raise _not_understood("values that are no numbers")
        return cls(mean=mean, precision=precision)


def _not_understood(why: str) -> BundleError:
    return BundleError(
        f"Received: a bundle whose description of dermoscopic images is not understood ({why}). Expected: what "
        "`dermq-train export` of this version writes. Export the bundle again."
    )
