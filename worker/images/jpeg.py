"""JPEG: decoding plain files, and finding damage in all others.

Where a JPEG is damaged in the middle, OpenCV fills in grey or shifted colours, prints a warning to standard error, and
returns the picture like any other. `simplejpeg` raises libjpeg-turbo's warnings. Both decode with libjpeg-turbo, to the
same pixels.
"""

from typing import cast

import numpy as np
import numpy.typing as npt
import simplejpeg

_START = b"\xff\xd8"
_SCAN = 0xDA
_EXIF = b"Exif\0"
#: Frames whose scans hold all coefficients. The last three parameters of such a scan must be these; they mean nothing.
_SEQUENTIAL_FRAMES = (0xC0, 0xC1)
_SEQUENTIAL_PARAMETERS = b"\x00\x3f\x00"
#: Segments without pixels: of applications (versions, colour profiles, thumbnails), and comments.
_WITHOUT_PIXELS = (*range(0xE0, 0xF0), 0xFE)
#: The checker's text for an unknown chroma subsampling. It is no sign of damage.
_NOT_CHECKED = "Could not determine subsampling"
#: libjpeg's text when an allocation failed.
_NO_MEMORY = "Insufficient memory"


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Height and width that a JPEG declares, in pixels. None where its header cannot be read."""
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    except (ValueError, KeyError):
        # A KeyError stands for a chroma subsampling that simplejpeg has no name for.
        return None
    return height, width


def decode_plain_jpeg(data: bytes, max_pixels: int, divisor: int = 1) -> npt.NDArray[np.uint8] | None:
    """Decode an undamaged colour JPEG that is stored upright; nearly all are such.

    Args:
        data: the whole file.
        max_pixels: of the largest picture that is decoded.
        divisor: of its sides: 1, 2, 4 or 8. The quotients are rounded up.

    Returns:
        (height, width, 3), uint8, RGB, the same pixels as OpenCV's. None for any other file, which OpenCV decodes and
        `jpeg_damage` checks.
    """
    # A turned picture says so in its EXIF segment. Anywhere: a thumbnail in an earlier segment may look like a scan.
    if _EXIF in data:
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data, strict=True)
        if colours != "YCbCr" or height * width > max_pixels:
            return None
        # The least size that is asked for decides the scale. Without one it is the full size.
        least = {"min_height": -(-height // divisor), "min_width": -(-width // divisor)} if divisor > 1 else {}
        return cast("npt.NDArray[np.uint8]", simplejpeg.decode_jpeg(data, "RGB", strict=True, **least))
    except ValueError:
        return None


def jpeg_damage(data: bytes) -> str | None:
    """Find damage in the compressed picture with libjpeg-turbo, which reads all of it.

    Segments without pixels may be odd: some cameras write an unknown version, some editors a broken colour profile. So
    a file with a warning is checked again without these segments.

    Args:
        data: a file that OpenCV decodes, which has checked its size.

    Returns:
        libjpeg's warning. None when nothing is wrong, or the chroma subsampling is too rare to be checked. Damage that
        is valid code for other pixels cannot be found.

    Raises:
        MemoryError: there is not enough memory for the check.
    """
    found = _warning(data)
    return found if found is None else _warning(_without_segments(data))


def _warning(data: bytes) -> str | None:
    try:
        # An eighth of each side, in grey: all bits are decoded, hardly anything is transformed.
        simplejpeg.decode_jpeg(data, "GRAY", min_height=1, min_width=1, strict=True)
    except ValueError as error:
        said = str(error)
        if _NO_MEMORY in said:
            raise MemoryError from None
        return None if _NOT_CHECKED in said else said
    return None


def _without_segments(data: bytes) -> bytes:
    """The file without these segments before its first scan. Unchanged where the segments cannot be parsed."""
    parts, place, frame = [_START], len(_START), 0
    while data[place : place + 1] == b"\xff" and place + 4 <= len(data):
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == 0xFF:
            # Fill bytes: any number of them may precede a marker.
            place += 1
            continue
        end = place + 2 + length
        if marker == _SCAN:
            head, rest = data[place:end], data[end:]
            if frame in _SEQUENTIAL_FRAMES:
                # Some encoders leave them at zero. libjpeg warns of that and decodes as if they were right.
                head = head[: -len(_SEQUENTIAL_PARAMETERS)] + _SEQUENTIAL_PARAMETERS
            return b"".join([*parts, head, rest])
        if 0xC0 <= marker <= 0xC2:
            frame = marker
        if marker not in _WITHOUT_PIXELS:
            parts.append(data[place:end])
        place = end
    return data
