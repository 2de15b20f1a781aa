"""Out-of-distribution (OOD) detection: a letter, a screenshot or an X-ray gets no probability.

The network's own features do not help: it was trained on dermoscopy alone, and to it a page of text is like an
unremarkable nevus (docs/decisions/0011-out-of-distribution.md). So the gate measures colours, layout and texture of the
model's input and compares them with the training images by the Mahalanobis distance.
"""

import io
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from worker.errors import BundleError
from worker.images.colour import RGBImage
from worker.images.opencv import cv2

Floats = npt.NDArray[np.float64]

#: Levels of the Laplacian pyramid (Burt & Adelson, 1983) that are measured, from the finest.
_LEVELS = 5
#: Number of measures of one image.
MEASURES = 13 + _LEVELS
#: Added before logarithms and divisions, in CIELAB units, for images with little contrast or colour.
_FLAT, _FLAT_LEVEL, _PALE = 0.5, 0.2, 0.5
#: Converts OpenCV's 8-bit CIELAB to CIELAB units.
_SCALE, _OFFSET = np.array((100 / 255, 1, 1)), np.array((0, 128, 128))
#: What a bundle's file holds.
_WHAT = "statistics for the out-of-distribution gate"
#: Quantiles of the chroma that are measured.
_CHROMA = (0.05, 0.95)


def measure_image_statistics(model_input: RGBImage) -> Floats:
    """Measure colours, layout and texture, in CIELAB.

    Args:
        model_input: as preprocessed, (size, size, 3), uint8, RGB.

    Returns:
        (`MEASURES`,): for each of L, a, b the mean, the logarithm of the standard deviation, and the difference between
        middle and rim; the logarithm of the lightness' deviation at each level of detail; the logarithms of low and
        high chroma; and the mean hue direction, weighted by chroma.
    """
    # In 8 bits: four times as fast as in floats. The results are converted to CIELAB units.
    lab = cv2.cvtColor(model_input, cv2.COLOR_RGB2LAB)
    level, deviation = (part.ravel() for part in cv2.meanStdDev(lab))
    size = len(lab)
    middle, rim = size // 4, size // 8
    centre = np.array(cv2.mean(lab[middle:-middle, middle:-middle])[:3])
    inside = lab[rim:-rim, rim:-rim]
    share = (len(inside) / size) ** 2
    around = (level - share * np.array(cv2.mean(inside)[:3])) / (1 - share)
    mean = level * _SCALE - _OFFSET
    # Every second pixel of every second row gives the same in a quarter of the time.
    red_green, yellow_blue = (lab[::2, ::2, axis].astype(np.float32) - 128 for axis in (1, 2))
    chroma = cv2.magnitude(red_green, yellow_blue).ravel()
    # Half as long as sorting.
    ranks = [int(rank * (len(chroma) - 1)) for rank in _CHROMA]
    chroma.partition(ranks)
    return np.concatenate(
        [
            mean,
            np.log(deviation * _SCALE + _FLAT),
            (centre - around) * _SCALE,
            np.log(_detail(lab[..., 0].astype(np.float32)) * _SCALE[0] + _FLAT_LEVEL),
            np.log1p(chroma[ranks]),
            mean[1:] / (float(chroma.mean()) + _PALE),
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
class ImageStatistics:
    """Statistics of the training images, as a few groups: images with a dark rim are a group of their own.

    Args:
        mean: mean of the measures of each group, (groups, `MEASURES`).
        precision: inverse of their covariance, (groups, `MEASURES`, `MEASURES`).
    """

    mean: Floats
    precision: Floats

    def distance(self, model_input: RGBImage) -> float:
        """Mahalanobis distance of an image from the nearest group. A typical training image has about 4.

        Args:
            model_input: as preprocessed, (size, size, 3), uint8, RGB.
        """
        offsets = measure_image_statistics(model_input) - self.mean
        squares = np.einsum("gi,gij,gj->g", offsets, self.precision, offsets)
        return math.sqrt(max(float(squares.min()), 0.0))

    def to_bytes(self) -> bytes:
        """An ``.npz`` of plain arrays."""
        file = io.BytesIO()
        np.savez(file, mean=self.mean, precision=self.precision)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "ImageStatistics":
        """Read what `to_bytes` wrote. Nothing in it is executed.

        Raises:
            BundleError: the content is something else.
        """
        arrays = load_arrays(data, ("mean", "precision"), _WHAT)
        mean, precision = arrays["mean"], arrays["precision"]
        groups = len(mean) if mean.ndim else 0
        if not groups or mean.shape != (groups, MEASURES) or precision.shape != (groups, MEASURES, MEASURES):
            raise _invalid(f"shapes {mean.shape} and {precision.shape}")
        # With any other matrix a page of text could have the distance 0.
        symmetric = np.allclose(precision, precision.transpose(0, 2, 1))
        if not symmetric or not (np.linalg.eigvalsh(precision) > 0).all():
            raise _invalid("a matrix that is no inverse of a covariance")
        return cls(mean=mean, precision=precision)


def load_arrays(data: bytes, names: tuple[str, ...], what: str) -> dict[str, Floats]:
    """Read plain arrays of a bundle's ``.npz``. Nothing in it is executed.

    Args:
        data: the file.
        names: of the arrays that it must hold, of finite 64-bit floats.
        what: for the error.

    Raises:
        BundleError: the content is something else.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {name: file[name] for name in names}
    # NumPy and zipfile raise a dozen kinds of errors for damaged bytes, MemoryError and TokenError among them.
    except Exception as error:
        raise _invalid(type(error).__name__, what) from None
    for array in arrays.values():
        if not isinstance(array, np.ndarray):
            raise _invalid("no arrays", what)
        if array.dtype != np.float64:
            raise _invalid(f"numbers of kind {array.dtype}", what)
        if not np.isfinite(array).all():
            raise _invalid("values that are not finite numbers", what)
    return arrays


def _invalid(why: str, what: str = _WHAT) -> BundleError:
    return BundleError(f"The bundle's {what} are invalid ({why}). Export the bundle again with `dermq-train export`.")
