"""Bytes of an image file to 8-bit RGB."""

from typing import cast

import numpy as np
import numpy.typing as npt

from db.status import FailureCode
from worker.errors import ImageFaultError
from worker.images.jpeg_integrity import jpeg_damage
from worker.images.multipage import refuse_several
from worker.images.opencv import MAX_IMAGE_PIXELS, cv2

RGBImage = npt.NDArray[np.uint8]

#: OpenCV's error code for an allocation that failed.
_NO_MEMORY = -4
#: Longest signature needed to name a format, in bytes.
_SIGNATURE_BYTES = 12


def sniff_format(data: bytes) -> str | None:
    """Name the format of an image by its first bytes, whatever its file is called.

    Args:
        data: at least the first 12 bytes of the file.

    Returns:
        ``"jpeg"``, ``"png"``, ``"tiff"``, ``"bmp"``, ``"webp"``, or None for anything else.
    """
    head = data[:_SIGNATURE_BYTES]
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff"
    if head.startswith(b"BM"):
        return "bmp"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "webp"
    return None


def decode(data: bytes) -> RGBImage:
    """Decode an image file.

    JPEG, PNG, TIFF, BMP and WebP of one picture, found by content. EXIF orientation is applied; grey becomes RGB,
    transparency is dropped, 16-bit samples are scaled to 8. Only formats on this list reach a decoder.

    Args:
        data: the whole file.

    Returns:
        Array of shape (height, width, 3), uint8, RGB.

    Raises:
        ImageFaultError: ``truncated`` for an empty, short or damaged file (as far as its format shows it: PNG has
            checksums and JPEG its grammar, but other bytes in a BMP, TIFF or WebP are mostly just another picture),
            ``unsupported_format``, or ``too_large`` for more than `MAX_IMAGE_PIXELS` pixels (refused before the pixels
            are allocated).
        MemoryError: there is not enough memory for the pixels.
    """
    if not data:
        raise ImageFaultError(FailureCode.TRUNCATED, "the file is empty (0 bytes)")
    name = sniff_format(data)
    if name is None:
        raise ImageFaultError(
            FailureCode.UNSUPPORTED_FORMAT,
            "the content is not JPEG, PNG, TIFF, BMP or WebP, whatever the file's name says",
        )
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        # OpenCV has no error class for this; the name of its own limit in the assertion is the only mark.
        if "CV_IO_MAX_IMAGE" in str(error):
            raise ImageFaultError(
                FailureCode.TOO_LARGE,
                f"the {name.upper()} declares more than {MAX_IMAGE_PIXELS:,} pixels, or a side beyond OpenCV's limit",
            ) from None
        if error.code == _NO_MEMORY:
            raise MemoryError from None
        raise ImageFaultError(FailureCode.TRUNCATED, f"the {name.upper()} is damaged: its decoder gave up") from None
    if image is None:
        if _decodes_small(data):
            raise MemoryError
        raise ImageFaultError(
            FailureCode.TRUNCATED, f"the {name.upper()} ends too early, is damaged, or is of a kind OpenCV cannot read"
        )
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ImageFaultError(
            FailureCode.UNSUPPORTED_FORMAT,
            f"the {name.upper()} decodes to {image.dtype} of shape {image.shape}, expected 8-bit colour",
        )
    # After OpenCV, which refuses what is too large.
    refuse_half_read(data)
    return cast("RGBImage", image)


def refuse_half_read(data: bytes) -> None:
    """Pass if the picture that OpenCV makes of a file is all that is in it, and whole; takes a fraction of decoding it.

    Raises:
        ImageFaultError: ``unsupported_format`` for several pictures, ``truncated`` for damage that OpenCV passes over.
    """
    name = sniff_format(data)
    if name is not None:
        refuse_several(name, data)
    if name == "jpeg" and (damage := jpeg_damage(data)) is not None:
        raise ImageFaultError(FailureCode.TRUNCATED, f"the JPEG is damaged or cut, its decoder says: {damage}")


def _decodes_small(data: bytes) -> bool:
    """Whether a 64th of the pixels can be had from a file that did not decode: then it is whole, and memory was short.

    OpenCV gives the same None for both. Only JPEG is decoded small; other formats remain in doubt.
    """
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8) is not None
    except cv2.error:
        return False
