"""Decoding the bytes of an image file to 8-bit sRGB."""

from collections.abc import Callable

from db.status import FailureCode
from worker.errors import ImageFaultError
from worker.images.bmp import decode_bmp
from worker.images.colour import RGBImage
from worker.images.dicom import decode_dicom
from worker.images.dicom_header import dicom_is_installed
from worker.images.identify import Format, describe_content, is_dicom, sniff_format
from worker.images.jpeg import DecodedImage, Divisor, decode_jpeg, is_plain_jpeg, refuse_damaged_jpeg
from worker.images.png import decode_png, is_plain_png
from worker.images.tiff import decode_tiff
from worker.images.webp import decode_webp

#: Version of what is made of a file. Raise it when any file gives other pixels, or is refused: inferences of an
#: earlier version are then reused only for the files that `reads_as_ever` knows.
READER = 2

_DECODERS: dict[Format, Callable[[bytes], RGBImage]] = {
    "png": decode_png,
    "tiff": decode_tiff,
    "bmp": decode_bmp,
    "webp": decode_webp,
}


def decode(data: bytes) -> RGBImage:
    """Decode a JPEG, PNG, TIFF, BMP or WebP file with one picture, at its full size; see `decode_image`."""
    return decode_image(data).pixels


def decode_image(data: bytes, divisor: Divisor | None = None, frame: int | None = None) -> DecodedImage:
    """Decode a JPEG, PNG, TIFF, BMP or WebP file with one picture, or a DICOM file where its support is installed.

    EXIF orientation is applied, grey becomes RGB, embedded colour profiles are converted to sRGB, transparency is
    dropped, and samples of more than 8 bits are scaled by the white that the file states. The format is recognised by
    content; no other format reaches a decoder. docs/formats.md lists every kind.

    Args:
        data: the whole file.
        divisor: by what the sides of a JPEG may be divided, which saves most of the decoding. None: full size.
        frame: of a DICOM file, from 1. None for the only one.

    Raises:
        ImageFaultError: ``truncated`` for an empty, short or damaged file, as far as its format shows damage (PNG has
            checksums, JPEG a grammar, a compressed TIFF the length of its strips; a changed byte in a BMP or a TIFF
            without compression is mostly another valid picture); ``unsupported_format``, with what the file is; or
            ``too_large`` for more than `MAX_IMAGE_PIXELS` pixels, before they are allocated.
        MemoryError: there is not enough memory for the pixels.
    """
    if _is_readable_dicom(data):
        image = decode_dicom(data, frame)
        return DecodedImage(pixels=image, short_side=min(image.shape[:2]))
    name = _format_of(data)
    if name == "jpeg":
        return decode_jpeg(data, divisor)
    image = _DECODERS[name](data)
    return DecodedImage(pixels=image, short_side=min(image.shape[:2]))


def reads_as_ever(data: bytes) -> bool:
    """Whether earlier versions of dermq read the same pixels of a file, so that their inference may be reused.

    Raises:
        ImageFaultError: the file is refused today. Much faster than decoding.
    """
    if _is_readable_dicom(data):
        return False
    name = _format_of(data)
    if name == "png":
        return is_plain_png(data)
    if name != "jpeg":
        return False
    refuse_damaged_jpeg(data)
    return is_plain_jpeg(data)


def _is_readable_dicom(data: bytes) -> bool:
    # A file may be of two kinds: the preamble of a DICOM file may be the header of a TIFF. What DICOM says counts.
    return is_dicom(data) and sniff_format(data) in (None, "tiff") and dicom_is_installed()


def _format_of(data: bytes) -> Format:
    if not data:
        raise ImageFaultError(FailureCode.TRUNCATED, "the file is empty (0 bytes)")
    name = sniff_format(data)
    if name is None:
        content = describe_content(data)
        raise ImageFaultError(
            FailureCode.UNSUPPORTED_FORMAT,
            f"by its content, the file is {content.name}, not a JPEG, PNG, TIFF, BMP or WebP. {content.advice}",
        )
    return name
