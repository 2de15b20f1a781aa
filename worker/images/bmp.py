"""BMP, decoded by Pillow. Colour masks are applied here: OpenCV ignores those behind a short header."""

import struct

import numpy as np

from db.status import FailureCode
from worker.errors import ImageFaultError
from worker.images.colour import RGBImage, to_srgb
from worker.images.opencv import MAX_IMAGE_PIXELS
from worker.images.pillow import open_with_pillow, pixels_of

#: Sizes of the headers that Windows and OS/2 write, and that of the newest, which may hold a profile.
_HEADERS, _SHORT, _NEWEST = (12, 40, 52, 56, 64, 108, 124), 40, 124
_DEPTHS = (1, 4, 8, 16, 24, 32)
#: Compressions: none, run lengths of 8 and of 4 bits, and colour masks.
_COMPRESSIONS = (0, 1, 2, 3)
_NAMES = {4: "JPEG", 5: "PNG", 6: "masks with transparency", 11: "CMYK", 12: "CMYK", 13: "CMYK"}
#: A newest header that embeds a profile.
_EMBEDDED = b"DEBM"


def decode_bmp(data: bytes) -> RGBImage:
    """Decode a BMP: (height, width, 3), uint8, sRGB.

    Raises:
        ImageFaultError: as `worker.images.decode.decode`.
        MemoryError: there is not enough memory for the pixels.
    """
    if len(data) < 26:
        raise _damaged("it ends in its header")
    (header,) = struct.unpack_from("<I", data, 14)
    if header not in _HEADERS or len(data) < 14 + header:
        raise _damaged("its header is wrong")
    if header == 12:
        width, height, _, depth = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    else:
        width, height, _, depth, compression = struct.unpack_from("<iiHHI", data, 18)
    if compression not in _COMPRESSIONS:
        kind = _NAMES.get(compression, f"number {compression}")
        raise ImageFaultError(
            FailureCode.UNSUPPORTED_FORMAT, f"the BMP's pixels are stored as {kind}, which is not read. Save it as PNG"
        )
    if width <= 0 or not height or depth not in _DEPTHS:
        raise _damaged("its header is wrong")
    if width * abs(height) > MAX_IMAGE_PIXELS:
        raise ImageFaultError(
            FailureCode.TOO_LARGE,
            f"the BMP declares {width:,} x {abs(height):,} pixels, the limit is {MAX_IMAGE_PIXELS:,} in all",
        )
    if compression in (0, 3) and struct.unpack_from("<I", data, 10)[0] + _bytes(width, height, depth) > len(data):
        raise _damaged("it has fewer bytes than its pixels need")
    image = (
        _masked(data, header, width, height, depth)
        if compression == 3
        else pixels_of(open_with_pillow(data, "BMP"), "BMP")
    )
    return to_srgb(image, _profile(data, header))


def _masked(data: bytes, header: int, width: int, height: int, depth: int) -> RGBImage:
    """Pixels whose colours are where three masks say. Pillow knows the usual masks only."""
    if depth not in (16, 32) or len(data) < 66:
        raise _damaged("its header is wrong")
    # In the header, or right behind a short one.
    masks = struct.unpack_from("<III", data, 54)
    (start,) = struct.unpack_from("<I", data, 10)
    if start < 14 + header + (12 if header == _SHORT else 0):
        raise _damaged("its pixels would begin in its header")
    row = _bytes(width, 1, depth)
    padded = (row + 3) // 4 * 4
    flat = np.frombuffer(data, np.uint8, padded * (abs(height) - 1) + row, start)
    rows = np.zeros(padded * abs(height), np.uint8)
    rows[: flat.size] = flat
    words = rows.view("<u4" if depth == 32 else "<u2").reshape(abs(height), -1)[:, :width]
    image = np.empty((abs(height), width, 3), np.uint8)
    for number, mask in enumerate(masks):
        shift = (mask & -mask).bit_length() - 1
        most = mask >> max(shift, 0)
        if not mask or mask >> depth or most & (most + 1):
            raise _damaged("a colour mask is empty or has gaps")
        values = (words & mask).astype(np.uint64) >> np.uint64(shift)
        image[..., number] = (values * np.uint64(255) + np.uint64(most // 2)) // np.uint64(most)
    return image if height < 0 else image[::-1].copy()


def _bytes(width: int, height: int, depth: int) -> int:
    """Of the pixels. Each row is padded to four bytes; the padding of the last one may be missing."""
    row = -(-width * depth // 8)
    return (row + 3) // 4 * 4 * (abs(height) - 1) + row


def _damaged(what: str) -> ImageFaultError:
    return ImageFaultError(FailureCode.TRUNCATED, f"the BMP is cut short or damaged: {what}")


def _profile(data: bytes, header: int) -> bytes | None:
    if header != _NEWEST or data[70:74] != _EMBEDDED:
        return None
    offset, size = struct.unpack_from("<II", data, 14 + 112)
    return data[14 + offset : 14 + offset + size]
