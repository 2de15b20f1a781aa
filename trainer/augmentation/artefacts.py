"""Draw artefacts of dermoscopy on training images: hair, ruler, ink, a dark vignette, blur, JPEG.

A network that has hardly seen hair mistakes it for the even structure of a nevus, and misses the melanoma under it. The
drawings differ from those of `trainer.augmentation.perturbations`, which the robustness test uses: wavy and tapering
hairs of every colour rather than dark arcs, and strengths drawn from a range. Still both are drawn, so a good figure
says more about drawings than about photographs.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from worker.images.colour import RGBImage
from worker.images.opencv import cv2

#: Lines are drawn at so many times the size, so that a hair may be thinner than a pixel.
_FINE = 2
#: Fixed-point bits of a coordinate handed to OpenCV's line drawing.
_SHIFT = 4
#: Colours of hair from black over brown and red to white, RGB.
_HAIR = np.array(((25, 20, 18), (60, 40, 28), (105, 75, 50), (140, 85, 50), (190, 165, 125), (205, 205, 200)))
#: Colours of surgical markers: violet, blue, black, green.
_INK = np.array(((80, 45, 140), (40, 60, 150), (35, 35, 45), (40, 110, 90)))

Points = npt.NDArray[np.float64]


def draw_artefacts(image: RGBImage, rng: np.random.Generator) -> RGBImage:
    """Draw one kind of artefact on an image, hair most often, and now and then a second.

    Args:
        image: (size, size, 3), uint8, RGB; left as it is.
        rng: random numbers.

    Returns:
        A changed copy, of the same shape.
    """
    kinds = rng.choice(len(_KINDS), size=1 + (rng.random() < 0.25), replace=False, p=_SHARES)
    # In the order of the list: what is on the skin comes before what the camera does to it.
    for kind in sorted(kinds):
        image = _KINDS[kind][0](image, rng)
    return image


def _hair(image: RGBImage, rng: np.random.Generator) -> RGBImage:
    size = image.shape[0]
    number = round(np.exp(rng.uniform(np.log(2), np.log(60))))
    # Hairs of one skin lie about one way, and have about one colour.
    direction, colour = rng.uniform(0, 2 * np.pi), _HAIR[rng.integers(len(_HAIR))]
    coverage = np.zeros((size * _FINE, size * _FINE), np.uint8)
    along = np.linspace(0, 1, 17)
    for _ in range(number):
        angle = direction + rng.normal(0, 0.6)
        ahead, aside = np.array((np.cos(angle), np.sin(angle))), np.array((-np.sin(angle), np.cos(angle)))
        length, bow, wave = rng.uniform(0.2, 1.3), rng.normal(0, 0.15), rng.normal(0, 0.02)
        sideways = bow * along * (1 - along) * 4 + wave * np.sin(2 * np.pi * (along * rng.uniform(1, 2) + rng.random()))
        middle = rng.uniform(-0.1, 1.1, 2)
        points = middle + ((along - 0.5) * length)[:, None] * ahead + (length * sideways)[:, None] * aside
        # A hair thins towards its end.
        root = rng.uniform(0.003, 0.012) * size * _FINE
        for part, width in ((points[:9], root), (points[8:13], 0.75 * root), (points[12:], 0.5 * root)):
            _line(coverage, part * size * _FINE, max(1, round(width)))
    return _paint(image, coverage, colour * rng.uniform(0.7, 1.2), rng.uniform(0.6, 1))


def _ruler(image: RGBImage, rng: np.random.Generator) -> RGBImage:
    size = image.shape[0]
    coverage = np.zeros((size * _FINE, size * _FINE), np.uint8)
    edge, spacing, long_tick = rng.uniform(0, 0.25), rng.uniform(0.02, 0.08), rng.uniform(0.03, 0.2)
    for number, x in enumerate(np.arange(-0.2, 1.2, spacing)):
        length = long_tick if number % 5 == 0 else 0.6 * long_tick
        _line(coverage, np.array(((x, edge), (x, edge + length))) * size * _FINE, int(rng.integers(1, 4)))
    turned = cv2.getRotationMatrix2D((size * _FINE / 2,) * 2, rng.uniform(0, 360), 1)
    coverage = np.asarray(cv2.warpAffine(coverage, turned, coverage.shape), np.uint8)
    return _paint(image, coverage, np.full(3, rng.uniform(10, 80)), rng.uniform(0.6, 1))


def _ink(image: RGBImage, rng: np.random.Generator) -> RGBImage:
    size = image.shape[0]
    coverage = np.zeros((size * _FINE, size * _FINE), np.uint8)
    for _ in range(rng.integers(1, 6)):
        start, turn = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 1.2)
        angles, radius = np.linspace(start, start + turn, 12), rng.uniform(0.3, 0.6)
        points = 0.5 + radius * np.stack((np.cos(angles), np.sin(angles)), axis=1)
        _line(coverage, points * size * _FINE, max(2, round(rng.uniform(0.01, 0.04) * size * _FINE)))
    return _paint(image, coverage, _INK[rng.integers(len(_INK))] * rng.uniform(0.7, 1.2), rng.uniform(0.5, 0.95))


def draw_rim(image: RGBImage, rng: np.random.Generator) -> RGBImage:
    """A dark round rim, as of a dermatoscope with a round field, of chance width and softness.

    Args:
        image: (size, size, 3), uint8, RGB.
        rng: random numbers.
    """
    size = image.shape[0]
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size - 0.5
    middle = rng.normal(0, 0.04, 2)
    inside = (rng.uniform(0.42, 0.7) - np.hypot(x - middle[0], y - middle[1])) / rng.uniform(0.005, 0.08)
    light = 1 / (1 + np.exp(-np.clip(inside, -30, 30)))
    return np.rint(image * light[..., None]).astype(np.uint8)  # type: ignore[no-any-return]


def _blur(image: RGBImage, rng: np.random.Generator) -> RGBImage:
    return cv2.GaussianBlur(image, (0, 0), rng.uniform(0.002, 0.012) * image.shape[0])  # type: ignore[return-value]


def _jpeg(image: RGBImage, rng: np.random.Generator) -> RGBImage:
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(10, 90))]
    return cv2.imdecode(cv2.imencode(".jpg", image, quality)[1], cv2.IMREAD_COLOR)  # type: ignore[return-value]


#: What may be drawn, and how often.
_KINDS: tuple[tuple[Callable[[RGBImage, np.random.Generator], RGBImage], float], ...] = (
    (_hair, 0.45),
    (_ruler, 0.08),
    (_ink, 0.12),
    (draw_rim, 0.1),
    (_blur, 0.15),
    (_jpeg, 0.1),
)
_SHARES = np.array([share for _, share in _KINDS]) / sum(share for _, share in _KINDS)


def _line(coverage: npt.NDArray[np.uint8], points: Points, thickness: int) -> None:
    """Draw a line through points (n, 2), given as x and y in pixels."""
    fixed = np.rint(points * 2**_SHIFT).astype(np.int32)
    cv2.polylines(coverage, [fixed], False, 255, int(thickness), cv2.LINE_AA, _SHIFT)


def _paint(image: RGBImage, coverage: npt.NDArray[np.uint8], colour: Points, opacity: float) -> RGBImage:
    """Let a colour cover an image as far as the finer coverage says."""
    size = image.shape[0]
    share = cv2.resize(coverage, (size, size), interpolation=cv2.INTER_AREA)[..., None] * np.float32(opacity / 255)
    painted = image + share * (np.clip(colour, 0, 255).astype(np.float32) - image)
    return np.rint(painted).astype(np.uint8)
