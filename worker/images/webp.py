"""WebP, decoded by Pillow, whose decoder is Google's."""

from db.status import FailureCode
from worker.errors import ImageFaultError
from worker.images.colour import RGBImage, to_srgb
from worker.images.holes import has_hole
from worker.images.opencv import MAX_IMAGE_PIXELS
from worker.images.pillow import open_with_pillow, pixels_of

#: Bit of an extended WebP's features.
_ANIMATED = 0x02
#: Parts with compressed pixels.
_PIXELS = (b"VP8 ", b"VP8L")
#: Its decoder takes up to 24 bytes a pixel.
_MAX_PIXELS = MAX_IMAGE_PIXELS // 2


def decode_webp(data: bytes) -> RGBImage:
    """Decode a WebP with one picture: (height, width, 3), uint8, sRGB.

    Raises:
        ImageFaultError: as `worker.images.decode.decode`.
        MemoryError: there is not enough memory for the pixels.
    """
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise ImageFaultError(FailureCode.TRUNCATED, "the WebP is cut short: it declares more bytes than it has")
    place = 12
    while place + 8 <= end:
        length = int.from_bytes(data[place + 4 : place + 8], "little")
        if place + 8 + length > end:
            raise ImageFaultError(FailureCode.TRUNCATED, "the WebP is damaged: a part declares more bytes than it has")
        if data[place : place + 4] in _PIXELS and has_hole(data, place + 8, place + 8 + length):
            raise ImageFaultError(FailureCode.TRUNCATED, "the WebP is damaged: a hole of zeros in its pixels")
        place += 8 + length + length % 2
    if data[12:16] == b"VP8X" and len(data) > 20 and data[20] & _ANIMATED:
        raise ImageFaultError(
            FailureCode.UNSUPPORTED_FORMAT,
            "an animated WebP: only its first picture would be scored. Save each picture as its own file",
        )
    width, height = _declared_size(data)
    if width * height > _MAX_PIXELS:
        # Before Pillow opens it: its decoder would allocate them several times.
        raise ImageFaultError(
            FailureCode.TOO_LARGE,
            f"the WebP declares {width:,} x {height:,} pixels, the limit is {_MAX_PIXELS:,} in all",
        )
    image = open_with_pillow(data, "WEBP")
    return to_srgb(pixels_of(image, "WEBP"), image.info.get("icc_profile"))


def _declared_size(data: bytes) -> tuple[int, int]:
    """Width and height as the first chunk declares them (WebP container specification). Zeros where it is another."""
    kind, head = data[12:16], data[20:30]
    if kind == b"VP8X":
        return int.from_bytes(head[4:7], "little") + 1, int.from_bytes(head[7:10], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(head[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        return int.from_bytes(head[6:8], "little") & 0x3FFF, int.from_bytes(head[8:10], "little") & 0x3FFF
    return 0, 0
