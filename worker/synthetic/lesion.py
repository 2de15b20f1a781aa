"""Synthetic images that resemble dermoscopy: for the demo, the tests and a bundle's reference images.

No real image goes into them and they have no diagnosis, so their probabilities have no meaning. Light is modelled as in
skin: a lesion is a transmission, the share of red, green and blue that its pigment lets through, so that it is darker
than its surroundings on every skin tone.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.images.colour import RGBImage
from worker.images.opencv import cv2

Plane = npt.NDArray[np.float32]  # (height, width)
Planes = npt.NDArray[np.float32]  # (3, height, width), RGB: channels first, numpy is several times faster that way

#: Shortest side that can hold a lesion, in pixels.
MIN_SIDE = 32
#: Share of atypical lesions when the caller does not choose.
ATYPICAL_SHARE = 0.2

#: Relative optical density of melanin for red, green and blue: it absorbs blue most, hence brown.
_MELANIN = np.array([0.55, 0.95, 1.15], np.float32)
#: Optical density, for red, green and blue, of the patches of an atypical lesion.
_PATCHES = np.array(
    [
        [0.22, 0.44, 0.68],  # light brown
        [1.75, 1.80, 1.70],  # black
        [0.92, 0.66, 0.44],  # blue-grey
        [0.28, 0.62, 0.56],  # red
        [0.34, 0.24, 0.14],  # white veil
    ],
    np.float32,
)
#: Fixed-point bits of coordinates for OpenCV's line drawing.
_SHIFT = 4


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """The coordinate system: the unit is the shorter side, the origin is the middle."""

    width: int
    height: int

    @property
    def unit(self) -> int:
        """Length of the shorter side, in pixels."""
        return min(self.width, self.height)

    @property
    def x(self) -> Plane:
        """Column positions, shape (1, width)."""
        return np.asarray((np.arange(self.width) - (self.width - 1) / 2) / self.unit, np.float32)[None, :]

    @property
    def y(self) -> Plane:
        """Row positions, shape (height, 1)."""
        return np.asarray((np.arange(self.height) - (self.height - 1) / 2) / self.unit, np.float32)[:, None]

    def pixels(self, points: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
        """Points (..., 2) as x, y in units, to OpenCV's fixed-point pixels."""
        middle = np.array([(self.width - 1) / 2, (self.height - 1) / 2])
        return np.asarray(np.rint((points * self.unit + middle) * 2**_SHIFT), np.int32)

    def thickness(self, length: float) -> int:
        """A length in units to a line thickness in pixels, at least one."""
        return max(1, round(length * self.unit))

    def blank(self) -> RGBImage:
        """An empty coverage mask, shape (height, width), uint8: OpenCV smooths lines in 8 bits only."""
        return np.zeros((self.height, self.width), np.uint8)


def draw_lesion(seed: int, *, width: int = 600, height: int = 450, atypical: bool | None = None) -> RGBImage:
    """Draw one synthetic skin lesion as a dermatoscope would see it.

    Skin, lesion, artefacts and grain have a random stream each: a seed keeps its skin, hair and ruler whether its
    lesion is typical or not, and keeps its composition at another size.

    Args:
        seed: 0 or more; the same seed and arguments give the same bytes on the same platform.
        width: in pixels, at least `MIN_SIDE`.
        height: in pixels, at least `MIN_SIDE`.
        atypical: True for an irregular lesion of several colours, False for a round and even one; None lets the seed
            decide, with `ATYPICAL_SHARE` of them irregular.

    Returns:
        Array of shape (height, width, 3), uint8, RGB.

    Raises:
        ValueError: a side is shorter than `MIN_SIDE`.
    """
    if min(width, height) < MIN_SIDE:
        raise ValueError(f"An image of {width} x {height} pixels is too small. Each side needs at least {MIN_SIDE}.")
    frame = _Frame(width=width, height=height)
    choice, skin_rng, lesion_rng, artefact_rng, grain_rng = np.random.default_rng(seed).spawn(5)
    if atypical is None:
        atypical = bool(choice.random() < ATYPICAL_SHARE)

    picture = _skin(skin_rng, frame)
    picture *= _lesion(lesion_rng, frame, atypical)
    if artefact_rng.random() < 0.45:
        _add_hair(artefact_rng, frame, picture)
    if artefact_rng.random() < 0.15:
        _add_ruler(artefact_rng, frame, picture)
    if artefact_rng.random() < 0.25:
        _add_bubbles(artefact_rng, frame, picture)
    picture *= _light(artefact_rng, frame)
    return _expose(grain_rng, frame, picture)


def _noise(rng: np.random.Generator, frame: _Frame, cells: float, octaves: int = 1) -> Plane:
    """Smooth noise (height, width), standard deviation about 0.7: `cells` random bumps along the shorter side."""
    total: Any = np.float32(0)
    for octave in range(octaves):
        count = cells * 2**octave / frame.unit
        rows, columns = math.ceil(frame.height * count) + 1, math.ceil(frame.width * count) + 1
        if octave:
            # From grid to finer grid: only the last step has to fill the whole picture.
            total = cv2.resize(total, (columns, rows), interpolation=cv2.INTER_CUBIC)
        total = total + rng.standard_normal((rows, columns), dtype=np.float32) * np.float32(0.5**octave)
    return np.asarray(cv2.resize(total, (frame.width, frame.height), interpolation=cv2.INTER_CUBIC), np.float32)


def _ramp(values: Plane, low: float, high: float) -> Plane:
    """0 up to `low`, 1 from `high` on, an S between."""
    t = np.clip((values - np.float32(low)) * np.float32(1 / (high - low)), 0, 1, dtype=np.float32)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def _column(values: Any) -> Planes:
    """Three values, one a channel, to shape (3, 1, 1)."""
    return np.asarray(values, np.float32).reshape(3, 1, 1)


def _blend(picture: Planes, coverage: Plane, color: Planes) -> None:
    """Cover `picture` in place by `color`, broadcast to it, as far as `coverage` (height, width, 0 to 1) goes."""
    picture += coverage * (color - picture)


def _skin_tone(rng: np.random.Generator) -> Planes:
    """RGB of shape (3, 1, 1), 0 to 1, from very light to dark.

    Drawn by the individual typology angle, ITA = atan((L* - 50) / b*) in degrees (Chardon et al. 1991), mostly light
    as in the published archives.
    """
    ita = math.radians(68 - 113 * rng.beta(1.0, 2.2))
    b = rng.uniform(9, 18)
    lightness = min(50 + b * math.tan(ita), 80.0)
    a = rng.uniform(9, 23) if ita > 0.3 else rng.uniform(9, 15)
    lab = np.array([[[lightness, a, b]]], np.float32)
    return _column(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB))


def _skin(rng: np.random.Generator, frame: _Frame) -> Planes:
    """Bare skin, RGB 0 to 1: blotches, fine furrows, follicles."""
    flush = _noise(rng, frame, 3, octaves=2) * rng.uniform(0.01, 0.045)
    relief = _noise(rng, frame, 40, octaves=2) * rng.uniform(0.006, 0.016)
    # Furrows are where noise changes sign; stretching the noise gives them the grain of real skin lines.
    furrow = np.abs(_noise(rng, frame, 18))
    relief -= np.maximum(np.float32(0.25) - furrow, 0) * rng.uniform(0.02, 0.14)
    follicles = frame.blank()
    for center in rng.uniform(-1, 1, (int(rng.integers(0, 70)), 2)):
        _dot(frame, follicles, center, rng.uniform(0.004, 0.010), 255)
    relief += _soften(frame, follicles, 0.005) * rng.uniform(-0.04, 0.06)
    # Blood takes green and blue, hardly red.
    return np.asarray((1 + relief - flush * _column([0.35, 1, 0.9])) * _skin_tone(rng), np.float32)


def _dot(frame: _Frame, mask: RGBImage, center: npt.NDArray[Any], radius: float, value: int, outline: int = -1) -> None:
    """A disc, or a ring `outline` pixels thick, on a mask: center and radius in units."""
    x, y = frame.pixels(center).tolist()
    cv2.circle(mask, (x, y), round(radius * frame.unit * 2**_SHIFT), (value,), outline, cv2.LINE_AA, _SHIFT)


def _soften(frame: _Frame, mask: RGBImage, radius: float) -> Plane:
    """An 8-bit mask to float, 0 to 1, blurred by `radius` units."""
    blurred = cv2.GaussianBlur(mask, (0, 0), max(radius * frame.unit, 0.3))
    return np.multiply(blurred, np.float32(1 / 255), dtype=np.float32)


def _lesion(rng: np.random.Generator, frame: _Frame, atypical: bool) -> Planes:
    """Transmission of the lesion, 0 to 1, 1 on bare skin."""
    center = np.clip(rng.normal(0, 0.04, 2), -0.08, 0.08)
    radius = rng.uniform(0.17, 0.36)
    tilt = rng.uniform(0, math.pi)
    stretch = rng.uniform(1.1, 1.5) if atypical else rng.uniform(1.0, 1.35)
    dx, dy = (frame.x - center[0]) / radius, (frame.y - center[1]) / radius
    u = np.asarray((dx * math.cos(tilt) + dy * math.sin(tilt)) / math.sqrt(stretch), np.float32)
    v = np.asarray((dy * math.cos(tilt) - dx * math.sin(tilt)) * math.sqrt(stretch), np.float32)

    depth = _depth(rng, frame, u, v, atypical)
    density = _pigment(rng, frame, depth, atypical) * _column(_MELANIN * rng.uniform(0.88, 1.12, 3))
    if atypical:
        for patch in rng.permutation(_PATCHES)[: rng.integers(2, 5)]:
            # The slope puts each colour on its own side, which is what makes the lesion asymmetric in colour.
            side, slope = rng.uniform(0, 2 * math.pi), rng.uniform(0.2, 1.0)
            field = _noise(rng, frame, 0.8 / radius, octaves=3)
            field += np.float32(slope * math.cos(side)) * u + np.float32(slope * math.sin(side)) * v
            start = rng.uniform(-0.1, 0.4)
            coverage = _ramp(field, start, start + rng.uniform(0.5, 1.6)) * np.float32(rng.uniform(0.55, 0.9))
            _blend(density, coverage, _column(patch))
    texture = _network(rng, frame, depth) * np.float32(rng.uniform(0, 0.4))
    texture += _globules(rng, frame, center, radius, atypical) + np.float32(0.06) * _noise(rng, frame, 12, octaves=2)
    density += np.maximum(texture, -0.4) * _column(_MELANIN)
    softness = rng.uniform(0.07, 0.24) if atypical else rng.uniform(0.14, 0.34)
    density *= _ramp(depth, -softness, softness)
    return np.asarray(np.exp(-np.maximum(density, 0)), np.float32)


def _depth(rng: np.random.Generator, frame: _Frame, u: Plane, v: Plane, atypical: bool) -> Plane:
    """How far inside the outline a pixel lies, (height, width): 1 at the centre, 0 on the border, negative outside.

    `u` and `v`, (height, width), are coordinates in the lesion's own axes, 1 from the centre to the plain ellipse.
    """
    distance, angle = cv2.cartToPolar(u, v)
    turn = np.linspace(0, 2 * math.pi, 720, endpoint=False)
    # Low harmonics bend the whole shape, high ones notch its border; the first shifts it, so typical ones skip it.
    orders = np.arange(1, 12) if atypical else np.arange(2, 5)
    heights = rng.normal(0, 0.15 if atypical else 0.05, orders.size) / orders**0.9
    phases = rng.uniform(0, 2 * math.pi, orders.size)
    outline = 1 + (heights[:, None] * np.cos(orders[:, None] * turn + phases[:, None])).sum(axis=0)
    if atypical and rng.random() < 0.5:
        # Streaks: radial fingers, on one part of the border only.
        fingers = np.interp(turn, np.linspace(0, 2 * math.pi, 61), rng.exponential(0.10, 61))
        outline += fingers * np.clip(np.cos(turn - rng.uniform(0, 2 * math.pi)) + 0.2, 0, 1)
    outline = np.clip(outline, 0.55, 1.5).astype(np.float32)
    steps = (np.asarray(angle) * np.float32(720 / (2 * math.pi))).astype(np.int32) % 720
    ragged = _noise(rng, frame, 10, octaves=3) * np.float32(0.08 if atypical else 0.03)
    return np.asarray(1 - np.asarray(distance) / outline[steps] + ragged, np.float32)


def _pigment(rng: np.random.Generator, frame: _Frame, depth: Plane, atypical: bool) -> Plane:
    """Melanin, (height, width): even, darker or paler towards the middle; blotched if atypical."""
    if atypical:
        uneven = _noise(rng, frame, rng.uniform(4, 8), octaves=3) * np.float32(0.35)
        return np.asarray(np.clip(rng.uniform(0.8, 1.4) * (1 + uneven), 0.3, 2.4), np.float32)
    base, middle, start = rng.uniform(0.45, 1.35), rng.uniform(-0.2, 0.6), rng.uniform(0.0, 0.4)
    return np.asarray(base * (0.85 + middle * _ramp(depth, start, start + 0.55)), np.float32)


def _network(rng: np.random.Generator, frame: _Frame, depth: Plane) -> Plane:
    """Pigment network, (height, width), -1 to 0.5: brown meshes around pale holes, in places, and near the border.

    Three plane waves at 60 degrees make a honeycomb; bending the coordinates makes it skin.
    """
    pitch = rng.uniform(0.018, 0.030)
    bend = np.float32(0.36 * pitch)
    x = frame.x + bend * _noise(rng, frame, 0.4 / pitch)
    y = frame.y + bend * _noise(rng, frame, 0.4 / pitch)
    waves = np.zeros_like(depth)
    for angle in rng.uniform(0, math.pi) + np.array([0, math.pi / 3, 2 * math.pi / 3]):
        step = 2 * math.pi / pitch
        waves -= np.cos(x * np.float32(step * math.cos(angle)) + y * np.float32(step * math.sin(angle)))
    place = _ramp(_noise(rng, frame, 4) - np.float32(1.2) * depth, -1.0, 0.6)
    return waves * place * np.float32(1 / 3)


def _globules(
    rng: np.random.Generator, frame: _Frame, center: npt.NDArray[Any], radius: float, atypical: bool
) -> Plane:
    """Extra pigment of dots and globules, (height, width): even in typical lesions, of all sizes in atypical ones."""
    mask = frame.blank()
    largest = 0.016 if atypical else 0.008
    for _ in range(int(rng.integers(0, 60))):
        away, angle = radius * math.sqrt(rng.random()) * 0.85, rng.uniform(0, 2 * math.pi)
        spot = center + away * np.array([math.cos(angle), math.sin(angle)])
        _dot(frame, mask, spot, rng.uniform(0.003, largest), 255)
    return _soften(frame, mask, 0.003) * np.float32(rng.uniform(0.15, 0.6))


def _add_hair(rng: np.random.Generator, frame: _Frame, picture: Planes) -> None:
    """Strands over the picture, in place: thin and fair ones, or thick dark ones with a shadow."""
    dark = rng.random() < 0.6
    strands = frame.blank()
    heading = rng.uniform(0, math.pi)
    t = np.linspace(-0.5, 0.5, 24)[:, None]
    for _ in range(int(rng.integers(2, 16 if dark else 28))):
        angle = heading + rng.normal(0, 0.35)
        along = np.array([math.cos(angle), math.sin(angle)])
        across = np.array([-along[1], along[0]])
        length, bow, twist = rng.uniform(0.4, 1.4), rng.normal(0, 0.35), rng.normal(0, 0.4)
        points = rng.uniform(-0.6, 0.6, 2) + length * (t * along + (bow * t**2 + twist * t**3) * across)
        thickness = frame.thickness(rng.uniform(0.003, 0.0066) if dark else 0.0022)
        shade = (int(rng.integers(170, 256)),)
        cv2.polylines(strands, [frame.pixels(points)], False, shade, thickness, cv2.LINE_AA, _SHIFT)
    if dark:
        picture *= 1 - np.float32(0.22) * _soften(frame, strands, 0.006)
        ink = rng.uniform(0.06, 0.16) * _column([1.3, 1, 0.9])
        _blend(picture, _soften(frame, strands, 0.001) * np.float32(0.88), ink)
    else:
        sheen = picture * np.float32(0.6) + np.float32(0.3)
        _blend(picture, _soften(frame, strands, 0.001) * np.float32(0.45), sheen)


def _add_ruler(rng: np.random.Generator, frame: _Frame, picture: Planes) -> None:
    """A millimetre scale along one edge, in place: every fifth tick longer, every tenth longest."""
    marks = frame.blank()
    horizontal, far = rng.random() < 0.6, rng.random() < 0.5
    half_span, half_depth = frame.width / frame.unit / 2, frame.height / frame.unit / 2
    if not horizontal:
        half_span, half_depth = half_depth, half_span
    base = (half_depth - rng.uniform(0.005, 0.05)) * (1 if far else -1)
    spacing = rng.uniform(0.035, 0.055)
    for index, at in enumerate(np.arange(-half_span, half_span, spacing)):
        size = 0.085 if index % 10 == 0 else 0.06 if index % 5 == 0 else 0.038
        tick = np.array([[at, base], [at, base - size * math.copysign(1, base)]])
        first, last = frame.pixels(tick if horizontal else tick[:, ::-1]).tolist()
        cv2.line(marks, first, last, (255,), frame.thickness(0.005), cv2.LINE_AA, _SHIFT)
    _blend(picture, _soften(frame, marks, 0.0015) * np.float32(0.85), _column([0.08, 0.08, 0.10]))


def _add_bubbles(rng: np.random.Generator, frame: _Frame, picture: Planes) -> None:
    """Air in the gel, in place: a dark rim with a bright one inside it and a glint."""
    rims, glints = frame.blank(), frame.blank()
    thickness = frame.thickness(0.004)
    cluster = rng.uniform(-0.5, 0.5, 2)
    for _ in range(int(rng.integers(3, 16))):
        spot, radius = cluster + rng.normal(0, 0.16, 2), rng.uniform(0.008, 0.04)
        _dot(frame, rims, spot, radius, 200, thickness)
        _dot(frame, glints, spot, max(radius - 0.006, 0.002), 110, thickness)
        _dot(frame, glints, spot - radius * 0.45, radius * 0.16, 255)
    picture *= 1 - np.float32(0.45) * _soften(frame, rims, 0.003)
    _blend(picture, _soften(frame, glints, 0.002) * np.float32(0.75), _column([1.0, 0.98, 0.97]))


def _light(rng: np.random.Generator, frame: _Frame) -> Plane:
    """The dermatoscope's light, (height, width): uneven, fading outwards, sometimes cut off by the round tube."""
    x, y = frame.x - np.float32(rng.normal(0, 0.05)), frame.y - np.float32(rng.normal(0, 0.05))
    squared = np.asarray(x * x + y * y, np.float32)
    light = 1 + np.float32(0.03) * _noise(rng, frame, 1.5) - np.float32(rng.uniform(0.05, 0.4)) * squared
    if rng.random() < 0.25:
        edge = rng.uniform(0.56, 0.76)
        light *= 1 - np.float32(0.95) * _ramp(np.sqrt(squared), edge - 0.015, edge + rng.uniform(0.015, 0.05))
    return np.asarray(light, np.float32)


def _expose(rng: np.random.Generator, frame: _Frame, picture: Planes) -> RGBImage:
    """The camera: white balance, exposure, grain; 0 to 1 in, (height, width, 3), uint8 out."""
    gain = _column(rng.uniform(0.94, 1.06, 3) * rng.uniform(0.97, 1.10) * 255)
    grain = rng.standard_normal((frame.height, frame.width), dtype=np.float32) * np.float32(rng.uniform(0.8, 2.5))
    exposed = np.clip(np.rint(picture * gain + grain), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(exposed.transpose(1, 2, 0))
