"""What hair, a ruler, ink, a dark rim, blur and JPEG do to the scores: changes made to the decoded image.

The changes are drawn, not photographed, so they show a direction and no more. Lengths are shares of the shorter side;
images are brought to one size first, so that a strength means the same for every camera.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from worker.images.colour import RGBImage
from worker.images.opencv import cv2
from worker.images.preprocess import resize_shorter_side

#: Shorter side that larger images are brought to, in pixels: HAM10000's own.
WORKING_SIDE = 450
#: Fixed-point bits of a coordinate handed to OpenCV's line drawing.
_SHIFT = 4

Change = Callable[[RGBImage, float, np.random.Generator], RGBImage]


def hair(image: RGBImage, strength: float, rng: np.random.Generator) -> RGBImage:
    """Dark curved hairs across the image, ``strength`` of them."""
    height, width = image.shape[:2]
    side = min(height, width)
    changed = image.copy()
    for _ in range(round(strength)):
        start = rng.uniform((0, 0), (width, height))
        angle = rng.uniform(0, 2 * np.pi)
        end = start + rng.uniform(0.5, 1.1) * side * np.array((np.cos(angle), np.sin(angle)))
        bend = (start + end) / 2 + rng.normal(0, 0.15 * side, 2)
        colour = (rng.uniform(0.6, 1.2) * np.array((45, 32, 25))).astype(int).tolist()
        line = [(1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end for t in np.linspace(0, 1, 24)]
        _draw(changed, np.array(line), colour, thickness=max(1, round(rng.uniform(0.003, 0.007) * side)))
    return changed


def ruler(image: RGBImage, strength: float, rng: np.random.Generator) -> RGBImage:
    """Tick marks along a long edge; the long ones have ``strength`` of the shorter side."""
    if image.shape[0] > image.shape[1]:
        turned = ruler(np.ascontiguousarray(image.transpose(1, 0, 2)), strength, rng)
        return np.ascontiguousarray(turned.transpose(1, 0, 2))
    height, width = image.shape[:2]
    side = min(height, width)
    changed = image.copy()
    spacing = 0.035 * side
    for number in range(int(width / spacing)):
        x = (number + 0.5) * spacing
        length = strength * side * (1.0 if number % 5 == 0 else 0.6)
        _draw(
            changed, np.array(((x, height), (x, height - length))), [30, 30, 30], thickness=max(1, round(0.004 * side))
        )
    return changed


def ink(image: RGBImage, strength: float, rng: np.random.Generator) -> RGBImage:
    """Strokes of a surgical marker around the middle, ``strength`` of them."""
    height, width = image.shape[:2]
    side = min(height, width)
    layer = image.copy()
    turn = rng.uniform(0, 2 * np.pi)
    for number in range(round(strength)):
        middle = turn + number * np.pi / 2
        angles = np.linspace(middle - 0.35, middle + 0.35, 12)
        radius = rng.uniform(0.38, 0.45) * side
        points = np.array((width, height)) / 2 + radius * np.stack((np.cos(angles), np.sin(angles)), axis=1)
        _draw(layer, points, [70, 40, 140], thickness=max(2, round(0.02 * side)))
    # A marker's dye lets some of the skin through.
    return cv2.addWeighted(layer, 0.8, image, 0.2, 0)  # type: ignore[return-value]


def vignette(image: RGBImage, strength: float, rng: np.random.Generator) -> RGBImage:
    """A dark round rim that leaves ``strength`` of half the middle square's diagonal clear, as some dermatoscopes have.

    The middle square is what the model sees; relative to the whole image a rim would lie outside of it.
    """
    height, width = image.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    distance = np.hypot(x - width / 2, y - height / 2) / (min(width, height) / np.sqrt(2))
    light = 1 / (1 + np.exp((distance - strength) / 0.02))
    darkened: RGBImage = np.rint(image * light[..., None]).astype(np.uint8)
    return darkened


def blur(image: RGBImage, strength: float, rng: np.random.Generator) -> RGBImage:
    """Gaussian blur with a standard deviation of ``strength`` pixels on a shorter side of 450."""
    sigma = strength * min(image.shape[:2]) / WORKING_SIDE
    return cv2.GaussianBlur(image, (0, 0), sigma)  # type: ignore[return-value]


def jpeg(image: RGBImage, strength: float, rng: np.random.Generator) -> RGBImage:
    """Compression at quality ``strength``, 0 to 100, and back."""
    encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, round(strength)])
    return cv2.imdecode(encoded[1], cv2.IMREAD_COLOR_RGB)  # type: ignore[return-value]


@dataclass(frozen=True, kw_only=True)
class Perturbation:
    """A change at its strengths.

    Args:
        name: for the report.
        unit: what a strength counts.
        strengths: from weak to strong.
        change: takes image, strength and a source of chance.
    """

    name: str
    unit: str
    strengths: tuple[float, ...]
    change: Change


PERTURBATIONS = (
    Perturbation(name="hair", unit="number", strengths=(5, 15, 40), change=hair),
    Perturbation(name="ruler", unit="ticks", strengths=(0.05, 0.1, 0.2), change=ruler),
    Perturbation(name="ink", unit="strokes", strengths=(1, 2, 4), change=ink),
    Perturbation(name="vignette", unit="clear", strengths=(0.9, 0.75, 0.6), change=vignette),
    Perturbation(name="blur", unit="pixels", strengths=(1, 2, 4), change=blur),
    Perturbation(name="JPEG", unit="quality", strengths=(70, 40, 15), change=jpeg),
)


def working_copy(image: RGBImage) -> RGBImage:
    """The image with a shorter side of at most `WORKING_SIDE` pixels."""
    return resize_shorter_side(image, WORKING_SIDE) if min(image.shape[:2]) > WORKING_SIDE else image


def _draw(image: RGBImage, points: npt.NDArray[np.float64], colour: list[int], *, thickness: int) -> None:
    """Draw a line through points (n, 2), given as x and y in pixels, onto the image."""
    fixed = np.rint(points * 2**_SHIFT).astype(np.int32)
    cv2.polylines(image, [fixed], False, colour, thickness, cv2.LINE_AA, _SHIFT)
