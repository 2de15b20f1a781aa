"""Decoding the bytes of an image file to 8-bit RGB."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from db.status import FailureCode
from worker.errors import ImageFaultError
from worker.images.jpeg import decode_plain_jpeg, jpeg_damage, jpeg_size
from worker.images.multipage import refuse_several
from worker.images.opencv import MAX_IMAGE_PIXELS, cv2

RGBImage = npt.NDArray[np.uint8]
#: Takes height and width of a JPEG in pixels, and gives what its sides may be divided by while it is decoded: 1, 2, 4
#: or 8.
Divisor = Callable[[int, int], int]

#: OpenCV's flags for these divisors. They apply the EXIF orientation, as the flag for the full size does.
_FLAGS = {
    1: cv2.IMREAD_COLOR_RGB,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}

#: OpenCV's error code for an allocation that failed.
_NO_MEMORY = -4
#: Bytes needed to recognise a format.
_SIGNATURE_BYTES = 12
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def sniff_format(data: bytes) -> str | None:
    """Recognise the format of an image by its first bytes. The name of its file does not matter.

    Args:
        data: at least the first 12 bytes of the file.

    Returns:
        ``"jpeg"``, ``"png"``, ``"tiff"``, ``"bmp"``, ``"webp"``, or None for anything else.
    """
    head = data[:_SIGNATURE_BYTES]
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head.startswith(_PNG_SIGNATURE):
        return "png"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff"
    if head.startswith(b"BM"):
        return "bmp"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "webp"
    return None


@dataclass(frozen=True, kw_only=True)
class DecodedImage:
    """A decoded file.

    Args:
        pixels: (height, width, 3), uint8, RGB. A JPEG may have been decoded at a part of its size.
        short_side: of the picture in the file, in pixels.
    """

    pixels: RGBImage
    short_side: int


def decode(data: bytes) -> RGBImage:
    """Decode a JPEG, PNG, TIFF, BMP or WebP file with one picture, at its full size; see `decode_image`."""
    return decode_image(data).pixels


def decode_image(data: bytes, divisor: Divisor | None = None) -> DecodedImage:
    """Decode a JPEG, PNG, TIFF, BMP or WebP file with one picture.

    EXIF orientation is applied, grey becomes RGB, transparency is dropped, 16-bit samples are scaled to 8. The format
    is recognised by content; no other format reaches a decoder.

    Args:
        data: the whole file.
        divisor: by what the sides of a JPEG may be divided, which saves most of the decoding. None: full size.

    Raises:
        ImageFaultError: ``truncated`` for an empty, short or damaged file, as far as its format shows damage (PNG has
            checksums, JPEG a grammar; a changed byte in a BMP, TIFF or WebP is mostly another valid picture);
            ``unsupported_format``; or ``too_large`` for more than `MAX_IMAGE_PIXELS` pixels, before they are allocated.
        MemoryError: there is not enough memory for the pixels.
    """
    if not data:
        raise ImageFaultError(FailureCode.TRUNCATED, "the file is empty (0 bytes)")
    name = sniff_format(data)
    if name is None:
        raise ImageFaultError(
            FailureCode.UNSUPPORTED_FORMAT,
            "by its content, the file is not a JPEG, PNG, TIFF, BMP or WebP",
        )
    size = jpeg_size(data) if name == "jpeg" and divisor is not None else None
    divided = divisor(*size) if divisor is not None and size is not None else 1
    if name == "jpeg" and (plain := decode_plain_jpeg(data, MAX_IMAGE_PIXELS, divided)) is not None:
        return DecodedImage(pixels=plain, short_side=min(size or plain.shape[:2]))
    try:
        image = cv2.imdecode(np.frombuffer(_without_profile(data), np.uint8), _FLAGS[divided])
    except cv2.error as error:
        # OpenCV has no error class for this. Only its message names the limit.
        if "CV_IO_MAX_IMAGE" in str(error):
            raise ImageFaultError(
                FailureCode.TOO_LARGE,
                f"the {name.upper()} declares more than "
                f"{MAX_IMAGE_PIXELS:,} pixels, or a side longer than OpenCV allows",
            ) from None
        if error.code == _NO_MEMORY:
            raise MemoryError from None
        raise ImageFaultError(FailureCode.TRUNCATED, f"the {name.upper()} is damaged: its decoder failed") from None
    if image is None:
        if name == "jpeg":
            # Raises a MemoryError where memory was short. A progressive JPEG needs all of it at any size.
            jpeg_damage(data)
        if _decodes_small(data):
            raise MemoryError
        raise ImageFaultError(
            FailureCode.TRUNCATED, f"the {name.upper()} is cut short, damaged, or of a kind that OpenCV cannot read"
        )
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ImageFaultError(
            FailureCode.UNSUPPORTED_FORMAT,
            f"the {name.upper()} decodes to {image.dtype} of shape {image.shape}, expected 8-bit colour",
        )
    # After OpenCV, which refuses files that are too large.
    refuse_half_read(data)
    if divided > 1:
        # OpenCV has no flag for a reduced picture in this order.
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return DecodedImage(pixels=cast("RGBImage", image), short_side=min(size or image.shape[:2]))


def refuse_half_read(data: bytes) -> None:
    """Check that OpenCV reads the file completely and that it holds one picture. Much faster than decoding.

    Raises:
        ImageFaultError: ``unsupported_format`` for several pictures, ``truncated`` for damage that OpenCV ignores.
    """
    name = sniff_format(data)
    if name is not None:
        refuse_several(name, data)
    if name == "jpeg" and (damage := jpeg_damage(data)) is not None:
        raise ImageFaultError(FailureCode.TRUNCATED, f"the JPEG is damaged or cut short. Its decoder reports: {damage}")


def _without_profile(data: bytes) -> bytes:
    """A PNG without its colour profile, which OpenCV ignores. libpng would print the profile's name to standard
    error.
    """
    if not data.startswith(_PNG_SIGNATURE) or b"iCCP" not in data[: data.find(b"IDAT")]:
        return data
    parts, place = [data[: len(_PNG_SIGNATURE)]], len(_PNG_SIGNATURE)
    while (kind := data[place + 4 : place + 8]) and kind != b"IDAT":
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        if kind != b"iCCP":
            parts.append(data[place:end])
        place = end
    return b"".join([*parts, data[place:]])


def _decodes_small(data: bytes) -> bool:
    """Whether a file that did not decode can be decoded at an eighth of its size. Then memory was short.

    OpenCV returns None for both. Only JPEG can be decoded small; for other formats the question stays open.
    """
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8) is not None
    except cv2.error:
        return False
