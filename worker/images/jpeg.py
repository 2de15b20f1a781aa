"""JPEG: decoding plain files fast, and all others with every check.

Where a JPEG is damaged in the middle, OpenCV fills in grey or shifted colours, prints a warning to standard error, and
returns the picture like any other. `simplejpeg` raises libjpeg-turbo's warnings. Both decode with libjpeg-turbo, to the
same pixels. Pillow decodes four colours.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, ImageOps

from db.status import FailureCode
from worker.errors import ImageFaultError
from worker.images.colour import RGBImage, adobe_rgb, cmyk_to_srgb, to_srgb
from worker.images.holes import has_hole
from worker.images.opencv import MAX_IMAGE_PIXELS, cv2
from worker.images.orientation import orientation_of_exif, upright
from worker.images.pillow import open_with_pillow, pixels_of

#: Takes height and width of a JPEG in pixels, and gives what its sides may be divided by while it is decoded: 1, 2, 4
#: or 8.
Divisor = Callable[[int, int], int]

#: OpenCV's flags for these divisors. The orientation is applied here.
_FLAGS = {
    1: cv2.IMREAD_COLOR_RGB,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
#: OpenCV's error code for an allocation that failed.
_CV_NO_MEMORY = -4

_START, _END = b"\xff\xd8", b"\xff\xd9"
_SCAN = 0xDA
_EXIF, _PROFILE = b"Exif\0", b"ICC_PROFILE\0"
#: Frames whose scans hold all coefficients. The last three parameters of such a scan must be these; they mean nothing.
_SEQUENTIAL_FRAMES = (0xC0, 0xC1)
_SEQUENTIAL_PARAMETERS = b"\x00\x3f\x00"
#: Segments without pixels: of applications (versions, colour profiles, thumbnails), and comments.
_WITHOUT_PIXELS = (*range(0xE0, 0xF0), 0xFE)
#: Markers of a frame (ITU-T T.81, table B.1, and T.87). Those that are decoded: sequential and progressive, with
#: Huffman or arithmetic coding. 0xC4, 0xC8 and 0xCC are no frames.
_DECODED_FRAMES = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)
_OTHER_FRAMES = {
    0xC3: "a lossless JPEG",
    0xC5: "a hierarchical JPEG",
    0xC6: "a hierarchical JPEG",
    0xC7: "a hierarchical JPEG",
    0xCB: "a lossless JPEG",
    0xCD: "a hierarchical JPEG",
    0xCE: "a hierarchical JPEG",
    0xCF: "a hierarchical JPEG",
    0xF7: "a JPEG-LS picture",
}
#: Segments before the first scan that a file may have. A file of a million would take hours.
_MAX_SEGMENTS = 10_000
#: Scans that any file may have; usual are 1 to 10. More only of a small picture: each goes over all of it.
_USUAL_SCANS, _PIXELS_OF_SCANS = 32, 1 << 27
#: Bytes times pixels below which the scans are not counted: a scan takes 10 bytes at least, and a nanosecond a pixel.
_QUICK = 20_000_000_000
#: The beginning of a scan: its marker, its length, and one to four components.
_SCAN_HEADER = re.compile(rb"\xff\xda\0[\x08\x0a\x0c\x0e][\x01-\x04]")
#: The checker's text for an unknown chroma subsampling. It is no sign of damage.
_NOT_CHECKED = "Could not determine subsampling"
#: libjpeg's text when an allocation failed.
_NO_MEMORY = "Insufficient memory"
#: EXIF: the folder of interoperability, and the mark of Adobe RGB in its first tag (DCF 2.0).
_EXIF_INTEROPERABILITY, _ADOBE_RGB_MARK = 0xA005, "R03"


@dataclass(frozen=True, kw_only=True)
class DecodedImage:
    """A decoded file.

    Args:
        pixels: (height, width, 3), uint8, RGB. A JPEG may have been decoded at a part of its size.
        short_side: of the picture in the file, in pixels.
    """

    pixels: RGBImage
    short_side: int


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What a JPEG's frame header declares, and whether Adobe's marker says what its colours mean."""

    marker: int
    precision: int
    height: int
    width: int
    components: int
    adobe: bool
    #: Where the first scan begins.
    scan: int


def decode_jpeg(data: bytes, divisor: Divisor | None = None) -> DecodedImage:
    """Decode a JPEG to sRGB.

    Args:
        data: the whole file.
        divisor: by what its sides may be divided, which saves most of the decoding. None: full size.

    Raises:
        ImageFaultError: as `worker.images.decode.decode`.
        MemoryError: there is not enough memory for the pixels.
    """
    size = jpeg_size(data) if divisor is not None else None
    divided = divisor(*size) if divisor is not None and size is not None else 1
    if (plain := decode_plain_jpeg(data, MAX_IMAGE_PIXELS, divided)) is not None:
        return DecodedImage(pixels=plain, short_side=min(size or plain.shape[:2]))
    frame = _checked_frame(data)
    data = _refuse_damage(data, frame)
    if frame.components == 4:
        image = _four_colours(data, frame)
        return DecodedImage(pixels=image, short_side=min(image.shape[:2]))
    profile, orientation = _profile_and_orientation(data)
    image = upright(_with_opencv(data, divided), orientation)
    return DecodedImage(pixels=to_srgb(image, profile), short_side=min(size or image.shape[:2]))


def refuse_damaged_jpeg(data: bytes) -> None:
    """Check that a JPEG is whole and of a kind that is decoded. Much faster than decoding.

    Raises:
        ImageFaultError, MemoryError: as `decode_jpeg`.
    """
    _refuse_damage(data, _checked_frame(data))


def is_plain_jpeg(data: bytes) -> bool:
    """Whether the colours and the orientation of a JPEG are those of its samples, as far as its segments tell."""
    # A turned picture says so in its EXIF segment. Anywhere: a thumbnail in an earlier segment may look like a scan.
    return _EXIF not in data and _PROFILE not in data


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Height and width that a JPEG declares, in pixels. None where its header cannot be read."""
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    except (ValueError, KeyError):
        # A KeyError stands for a chroma subsampling that simplejpeg has no name for.
        return None
    return height, width


def decode_plain_jpeg(data: bytes, max_pixels: int, divisor: int = 1) -> npt.NDArray[np.uint8] | None:
    """Decode an undamaged colour JPEG that is stored upright, without a colour profile; nearly all are such.

    Args:
        data: the whole file.
        max_pixels: of the largest picture that is decoded.
        divisor: of its sides: 1, 2, 4 or 8. The quotients are rounded up.

    Returns:
        (height, width, 3), uint8, RGB, the same pixels as OpenCV's. None for any other file, which OpenCV decodes and
        `jpeg_damage` checks.
    """
    if not is_plain_jpeg(data) or has_hole(data):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data, strict=True)
        if colours != "YCbCr" or height * width > max_pixels or _has_too_many_scans(data, height * width):
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


def _checked_frame(data: bytes) -> Frame:
    """The frame header of a file of a kind that is decoded."""
    frame = read_frame(data)
    if frame.marker in _OTHER_FRAMES:
        raise _unsupported(_OTHER_FRAMES[frame.marker])
    if frame.precision != 8:
        raise _unsupported(f"a JPEG with samples of {frame.precision} bits")
    if frame.components not in (1, 3, 4):
        raise _unsupported(f"a JPEG with {frame.components} components")
    if not frame.width or not frame.height:
        raise _damaged("its header declares no pixels")
    if frame.width * frame.height > MAX_IMAGE_PIXELS:
        raise ImageFaultError(
            FailureCode.TOO_LARGE,
            f"the JPEG declares {frame.width:,} x {frame.height:,} pixels, the limit is {MAX_IMAGE_PIXELS:,} in all",
        )
    if _has_too_many_scans(data, frame.width * frame.height):
        raise _unsupported("a JPEG with far more scans than any camera or program writes")
    return frame


def _has_too_many_scans(data: bytes, pixels: int) -> bool:
    # However many scans so few bytes hold, they are done in some three seconds.
    if len(data) * pixels < _QUICK:
        return False
    most = max(_USUAL_SCANS, _PIXELS_OF_SCANS // max(pixels, 1))
    # Nothing is quicker than to count the markers, which thumbnails and what lies behind the picture may hold, too.
    return data.count(bytes((0xFF, _SCAN))) > most and len(_SCAN_HEADER.findall(data)) > most


def read_frame(data: bytes) -> Frame:
    """The frame header of any kind of JPEG, lossless and JPEG-LS, too.

    Raises:
        ImageFaultError: ``truncated``: there is none.
    """
    place, adobe = len(_START), False
    found: Frame | None = None
    for _ in range(_MAX_SEGMENTS):
        # Fill bytes: any number of them may precede a marker. And what is no marker at all, libjpeg passes over.
        place = data.find(b"\xff", place)
        if place < 0:
            break
        while data[place + 1 : place + 2] == b"\xff":
            place += 1
        marker, length = int.from_bytes(data[place + 1 : place + 2], "big"), data[place + 2 : place + 4]
        if marker in (0x00, 0x01, *range(0xD0, 0xD9)):
            place += 2
            continue
        content = data[place + 4 : place + 2 + int.from_bytes(length, "big")]
        if marker in (_SCAN, _END[1]):
            break
        if marker == 0xEE and content.startswith(b"Adobe"):
            adobe = True
        if (marker in _DECODED_FRAMES or marker in _OTHER_FRAMES) and len(content) >= 6 and found is None:
            found = Frame(
                marker=marker,
                precision=content[0],
                height=int.from_bytes(content[1:3], "big"),
                width=int.from_bytes(content[3:5], "big"),
                components=content[5],
                adobe=False,
                scan=len(data),
            )
        place += 2 + int.from_bytes(length, "big")
    if found is None:
        raise _damaged("it has no picture")
    return replace(found, adobe=adobe, scan=place if place > 0 else len(data))


def _refuse_damage(data: bytes, frame: Frame) -> bytes:
    """The file, without zeros between its last pixel and its end, which some archives pad with."""

    def damage_of(whole: bytes) -> str | None:
        # Within compressed pixels, no end stands.
        hole = has_hole(whole, frame.scan, whole.find(_END, frame.scan))
        return "a hole of zeros in its pixels" if hole else jpeg_damage(whole)

    damage = damage_of(data)
    if damage is None:
        return data
    end = data.rfind(_END)
    if end > 0 and data[end - 1] == 0:
        bare = data[:end].rstrip(b"\0")
        # A byte 0xFF of the compressed picture is followed by a zero, which belongs to it.
        for shortened in (bare + _END, bare + b"\0" + _END):
            if damage_of(shortened) is None:
                return shortened
    raise _damaged(f"its decoder reports: {damage}")


def _with_opencv(data: bytes, divided: int) -> RGBImage:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), _FLAGS[divided] | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        if error.code == _CV_NO_MEMORY:
            raise MemoryError from None
        raise _damaged("its decoder failed") from None
    if image is None:
        # The file was found whole. OpenCV returns nothing, too, where memory is short; then a part decodes.
        if divided == 1 and _decodes_small(data):
            raise MemoryError
        raise _damaged("its decoder failed")
    # OpenCV has no flag for a reduced picture in this order.
    return cast("RGBImage", cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if divided > 1 else image)


def _decodes_small(data: bytes) -> bool:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8) is not None
    except cv2.error:
        return False


def _four_colours(data: bytes, frame: Frame) -> RGBImage:
    """CMYK to sRGB: with the embedded profile, or, where Adobe's marker says how inks are counted, as browsers do."""
    image = open_with_pillow(data, "JPEG")
    profile = image.info.get("icc_profile")
    if not frame.adobe:
        raise ImageFaultError(
            FailureCode.UNSUPPORTED_FORMAT,
            "a JPEG of four colours (CMYK) that does not say whether 0 is no ink or all of it. Save it as sRGB",
        )
    if profile:
        try:
            upright = ImageOps.exif_transpose(image)
        except (OSError, ValueError, SyntaxError):
            raise _damaged("its decoder failed") from None
        if (converted := cmyk_to_srgb(upright, profile)) is not None:
            return converted
    return pixels_of(image, "JPEG")


def _profile_and_orientation(data: bytes) -> tuple[bytes | None, Any]:
    """The embedded ICC profile, or Adobe RGB where EXIF declares it, and the orientation.

    None for sRGB, and 1 for an orientation, where they are missing or cannot be read.
    """
    if is_plain_jpeg(data):
        return None, 1
    try:
        with Image.open(BytesIO(data), formats=["JPEG"]) as image:
            exif = image.getexif()
            orientation = orientation_of_exif(exif)
            if profile := image.info.get("icc_profile"):
                return profile, orientation
            mark = exif.get_ifd(_EXIF_INTEROPERABILITY).get(1)
    except MemoryError:
        raise
    except Exception:
        # EXIF of any kind: Pillow raises a dozen classes. Its picture is whole, and no viewer would refuse it.
        return None, 1
    return (adobe_rgb() if str(mark).strip("\0 ") == _ADOBE_RGB_MARK else None), orientation


def _unsupported(what: str) -> ImageFaultError:
    return ImageFaultError(
        FailureCode.UNSUPPORTED_FORMAT, f"{what}, which is not read. Save it as a usual JPEG or as PNG"
    )


def _damaged(what: str) -> ImageFaultError:
    return ImageFaultError(FailureCode.TRUNCATED, f"the JPEG is damaged or cut short: {what}")


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


def without_exif_and_profile(data: bytes) -> bytes:
    """A JPEG without its EXIF and its colour profile: in another container, those of the container count."""
    return _without_segments(data, (0xE1, 0xE2))


def _without_segments(data: bytes, markers: Sequence[int] = _WITHOUT_PIXELS) -> bytes:
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
            if frame in _SEQUENTIAL_FRAMES and markers is _WITHOUT_PIXELS:
                # Some encoders leave them at zero. libjpeg warns of that and decodes as if they were right.
                head = head[: -len(_SEQUENTIAL_PARAMETERS)] + _SEQUENTIAL_PARAMETERS
            return b"".join([*parts, head, rest])
        if 0xC0 <= marker <= 0xC2:
            frame = marker
        if marker not in markers:
            parts.append(data[place:end])
        place = end
    return data
