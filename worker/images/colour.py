"""Colour: embedded ICC profiles, and the EXIF mark of Adobe RGB, to sRGB, which the model was trained on.

The conversion is LittleCMS', through Pillow: relative colorimetric with black point compensation.
"""

import struct
from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from db.status import FailureCode
from worker.errors import ImageFaultError

RGBImage = npt.NDArray[np.uint8]
#: Largest profile that is read. Printers' profiles have some 3 MB.
MAX_PROFILE_BYTES = 16 * 1024 * 1024
#: A conversion that moves no value by more than this is left out: the profile is sRGB, as rounded by its writer.
_SAME = 1
#: Where a profile names the colour space of its pictures (ICC.1:2022, section 7.2.6).
_SPACE = slice(16, 20)
#: Step above which a conversion of 8 bits is too coarse for a file of 16. Of gamma 1.8 it is 3, of linear light 13.
_MOST_STEEP = 5
_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION | ImageCms.Flags.NOCACHE

#: Chromaticities of red, green, blue and white (IEC 61966-2-1, Adobe RGB (1998) section 4.3).
SRGB_PRIMARIES = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06), (0.3127, 0.3290))
_ADOBE_PRIMARIES = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06), (0.3127, 0.3290))
_ADOBE_GAMMA = 563 / 256
#: Bradford's adaptation (ICC.1:2022, annex E) and the profile connection space's white, D50.
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D50 = np.array([0.9642, 1.0, 0.8249])


def to_srgb(image: RGBImage, profile: bytes | None, *, deep: bool = False) -> RGBImage:
    """Convert an RGB or grey picture to sRGB.

    Args:
        image: (height, width, 3), uint8.
        deep: whether the file has more than 8 bits, which were scaled to 8 before.
        profile: ICC profile of the file. None, a damaged one or one of another colour model changes nothing, as in
            every viewer.

    Raises:
        ImageFaultError: ``unsupported_format`` for a deep picture in linear light, for which 8 bits are too few.
    """
    if not profile or len(profile) > MAX_PROFILE_BYTES:
        return image
    transform = _transform(profile)
    if transform is None:
        return image
    convert, mode = transform
    if mode == "L" and not (
        np.array_equal(image[..., 0], image[..., 1]) and np.array_equal(image[..., 0], image[..., 2])
    ):
        # A profile of grey in a picture in colour.
        return image
    if deep and _steepest(convert, mode) > _MOST_STEEP:
        raise ImageFaultError(
            FailureCode.UNSUPPORTED_FORMAT,
            "the file has more than 8 bits in linear light, which is not read. Save it as sRGB",
        )
    return np.asarray(ImageCms.applyTransform(Image.fromarray(image if mode == "RGB" else image[..., 0]), convert))


def cmyk_to_srgb(image: Image.Image, profile: bytes) -> RGBImage | None:
    """Convert a picture in CMYK (0: no ink) with its ICC profile. None where the profile is none for CMYK."""
    opened = _open(profile)
    if opened is None or profile[_SPACE] != b"CMYK":
        return None
    try:
        convert = ImageCms.buildTransform(
            opened, _srgb(), "CMYK", "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC, flags=_FLAGS
        )
        return np.asarray(ImageCms.applyTransform(image, convert))
    except ImageCms.PyCMSError:
        return None


@lru_cache(maxsize=64)
def _transform(profile: bytes) -> tuple[ImageCms.ImageCmsTransform, str] | None:
    """The conversion of a profile and its mode, RGB or L. None where it would change nothing."""
    opened = _open(profile)
    if opened is None:
        return None
    mode = {b"RGB ": "RGB", b"GRAY": "L"}.get(profile[_SPACE])
    if mode is None:
        return None
    try:
        convert = ImageCms.buildTransform(
            opened, _srgb(), mode, "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC, flags=_FLAGS
        )
    except ImageCms.PyCMSError:
        return None
    steps = np.arange(0, 256, 15, dtype=np.uint8)
    if mode == "RGB":
        probe = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(len(steps), -1, 3)
        expected = probe
    else:
        probe = np.arange(256, dtype=np.uint8)[None]
        expected = np.repeat(probe[..., None], 3, axis=2)
    converted = np.asarray(ImageCms.applyTransform(Image.fromarray(probe), convert))
    if np.abs(converted.astype(int) - expected).max() <= _SAME:
        return None
    return convert, mode


def _steepest(convert: ImageCms.ImageCmsTransform, mode: str) -> int:
    """The greatest step of the converted values between two neighbours among 256 greys."""
    greys = np.arange(256, dtype=np.uint8)[None]
    ramp = greys if mode == "L" else np.repeat(greys[..., None], 3, axis=2)
    converted = np.asarray(ImageCms.applyTransform(Image.fromarray(ramp), convert)).astype(int)
    return int(np.abs(np.diff(converted, axis=1)).max())


def _open(profile: bytes) -> ImageCms.ImageCmsProfile | None:
    # The size that the profile declares, and its mark (ICC.1:2022, section 7.2).
    if len(profile) < 132 or profile[36:40] != b"acsp" or struct.unpack(">I", profile[:4])[0] > len(profile):
        return None
    try:
        return ImageCms.ImageCmsProfile(BytesIO(profile))
    except (OSError, ImageCms.PyCMSError):
        return None


@lru_cache(maxsize=1)
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def matrix_profile(primaries: Sequence[tuple[float, float]], gamma: float) -> bytes:
    """An ICC profile (version 2) of a colour space that is known by its primaries and its gamma.

    Args:
        primaries: chromaticities x and y of red, green, blue and white.
        gamma: exponent from value to light.

    Raises:
        ValueError: no colour space has these primaries.
    """
    xyz = np.array([[x / y, 1.0, (1 - x - y) / y] if y > 0 else [np.nan] * 3 for x, y in primaries]).T
    if not np.isfinite(xyz).all() or abs(np.linalg.det(xyz[:, :3])) < 1e-6 or not 0.1 <= gamma <= 10:
        raise ValueError(f"no colour space has the primaries {primaries} and the gamma {gamma}")
    columns = xyz[:, :3] * np.linalg.solve(xyz[:, :3], xyz[:, 3])
    scale = np.diag((_BRADFORD @ _D50) / (_BRADFORD @ xyz[:, 3]))
    adapted = np.linalg.solve(_BRADFORD, scale @ _BRADFORD @ columns)
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    description = b"desc" + bytes(4) + struct.pack(">I", 6) + b"dermq\0" + bytes(78 + 2)
    tags = {
        b"desc": description,
        b"wtpt": _xyz(_D50),
        **{name: _xyz(adapted[:, number]) for number, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))},
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve),
    }
    place, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        table += name + struct.pack(">II", place + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    header = struct.pack(
        ">I4sI4s4s4s12s4s28s", place + len(body), b"", 0x02400000, b"mntr", b"RGB ", b"XYZ ", b"", b"acsp", b""
    )
    return (header + _xyz(_D50)[8:]).ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def _xyz(values: npt.NDArray[np.float64]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(float(value) * 65536) for value in values))


@lru_cache(maxsize=1)
def adobe_rgb() -> bytes:
    """Profile of Adobe RGB (1998), which cameras declare in EXIF alone (DCF 2.0, interoperability index R03)."""
    return matrix_profile(_ADOBE_PRIMARIES, _ADOBE_GAMMA)
