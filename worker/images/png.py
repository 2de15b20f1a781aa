"""PNG: every chunk is checked against the file before a decoder sees it, and damage is found by the checksums.

OpenCV decodes the pixels. It allocates what a chunk declares (a file of 61 bytes took 4 GB), and ignores colour
profiles and gamma, which are read here.
"""

import struct
import zlib
from typing import Any, cast

import numpy as np
from PIL import Image

from db.status import FailureCode
from worker.errors import ImageFaultError
from worker.images.colour import MAX_PROFILE_BYTES, SRGB_PRIMARIES, RGBImage, matrix_profile, to_srgb
from worker.images.opencv import MAX_IMAGE_PIXELS, cv2
from worker.images.orientation import orientation_of_exif, upright
from worker.images.samples import scale_to_8_bits, white_of_16_bits

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: Chunks that OpenCV gets: pixels and palette.
_FOR_DECODER = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
#: Chunks that matter here. Others are passed over.
_READ = (*_FOR_DECODER, b"eXIf", b"sBIT", b"iCCP", b"gAMA", b"cHRM", b"sRGB", b"cICP", b"acTL")
#: Most chunks of a file. Some encoders write one for each 8 KiB.
_MAX_CHUNKS = 200_000
#: Largest EXIF chunk: that of JPEG.
_MAX_EXIF = 65_535
#: Depths and colour types (PNG, section 11.2.1), and the colour type of a palette.
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_PALETTE, _COLOUR_BIT = 3, 2
#: 1 / 2.2 in PNG's units, by which sRGB is declared; what differs by less is meant to be the same.
_USUAL_GAMMA, _GAMMA_TOLERANCE = 45_455, 1_000
#: Difference of chromaticities, in PNG's units, that is rounding.
_CHROMATICITY_TOLERANCE = 500
#: Code points of sRGB: primaries of BT.709, its transfer, RGB, full range (ITU-T H.273).
_SRGB_CODE_POINTS = bytes((1, 13, 0, 1))


def decode_png(data: bytes) -> RGBImage:
    """Decode a PNG with one picture: (height, width, 3), uint8, sRGB.

    Raises:
        ImageFaultError: as `worker.images.decode.decode`.
        MemoryError: there is not enough memory for the pixels.
    """
    chunks = _chunks(data)
    depth = _check_header(chunks)
    profile = _profile(chunks)
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH if depth == 16 else cv2.IMREAD_COLOR_RGB
    try:
        image = cv2.imdecode(np.frombuffer(_for_decoder(chunks), np.uint8), flags)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError from None
        raise _damaged("its decoder failed") from None
    if image is None:
        raise _damaged("its decoder failed")
    if depth == 16:
        samples = cast("np.ndarray[tuple[int, ...], np.dtype[np.uint16]]", image)
        if samples.dtype != np.uint16:
            raise _damaged("its decoder gave other samples than its header declares")
        white = white_of_16_bits(samples, "PNG", _significant_bits(chunks))
        image = cv2.cvtColor(scale_to_8_bits(samples, white), cv2.COLOR_BGR2RGB)
    return to_srgb(upright(cast("RGBImage", image), _orientation(chunks)), profile, deep=depth == 16)


def is_plain_png(data: bytes) -> bool:
    """Whether a PNG has samples of at most 8 bits in sRGB. Much faster than decoding.

    Raises:
        ImageFaultError: as `decode_png`, as far as it shows without decoding.
    """
    chunks = _chunks(data)
    return _check_header(chunks) <= 8 and _profile(chunks) is None and _orientation(chunks) == 1


def _damaged(what: str) -> ImageFaultError:
    return ImageFaultError(FailureCode.TRUNCATED, f"the PNG is cut short or damaged: {what}")


def _unsupported(what: str) -> ImageFaultError:
    return ImageFaultError(FailureCode.UNSUPPORTED_FORMAT, f"the PNG {what}. Save it again as an sRGB PNG or JPEG")


def _chunks(data: bytes) -> dict[bytes, list[bytes]]:
    """The chunks that matter, in order, their lengths and checksums verified."""
    found: dict[bytes, list[bytes]] = {}
    place, view = len(_SIGNATURE), memoryview(data)
    for _ in range(_MAX_CHUNKS):
        if place + 12 > len(data):
            raise _damaged("it ends before its last chunk")
        length, kind = int.from_bytes(view[place : place + 4], "big"), data[place + 4 : place + 8]
        end = place + 12 + length
        if end > len(data):
            raise _damaged("a chunk declares more bytes than the file has")
        if kind == b"CgBI":
            raise _unsupported("is of a kind that only Apple's phones read")
        if kind in _READ:
            # A damaged chunk without pixels, such as a profile, is no reason to refuse the picture.
            if zlib.crc32(view[place + 4 : end - 4]) == int.from_bytes(view[end - 4 : end], "big"):
                found.setdefault(kind, []).append(bytes(view[place + 8 : end - 4]))
            elif kind in _FOR_DECODER:
                raise _damaged("a checksum is wrong")
        elif not kind.isalpha():
            raise _damaged("a chunk has no valid name")
        elif kind[:1].isupper():
            raise _unsupported("has a chunk without which it cannot be read, and which PNG does not define")
        if kind == b"IEND":
            return found
        place = end
    raise _damaged(f"it has more than {_MAX_CHUNKS:,} chunks")


def _check_header(chunks: dict[bytes, list[bytes]]) -> int:
    """Bits of a sample, checked."""
    headers = chunks.get(b"IHDR", [])
    if len(headers) != 1 or len(headers[0]) != 13 or b"IDAT" not in chunks:
        raise _damaged("it has no header or no pixels")
    width, height, depth, colour_type, compression, filtering, interlace = struct.unpack(">IIBBBBB", headers[0])
    if not width or not height or compression or filtering or interlace > 1:
        raise _damaged("its header is wrong")
    if depth not in _DEPTHS.get(colour_type, ()):
        raise _damaged("its header declares a depth that PNG does not have")
    if width * height > MAX_IMAGE_PIXELS:
        raise ImageFaultError(
            FailureCode.TOO_LARGE,
            f"the PNG declares {width:,} x {height:,} pixels, the limit is {MAX_IMAGE_PIXELS:,} in all",
        )
    palette = chunks.get(b"PLTE", [])
    if len(palette) > 1 or any(len(colours) % 3 or not 0 < len(colours) <= 768 for colours in palette):
        raise _damaged("its palette is wrong")
    if colour_type == _PALETTE and not palette:
        raise _damaged("its palette is missing")
    if b"acTL" in chunks:
        raise ImageFaultError(
            FailureCode.UNSUPPORTED_FORMAT,
            "an animated PNG: only its first picture would be scored. Save each picture as its own file",
        )
    return int(depth)


def _profile(chunks: dict[bytes, list[bytes]]) -> bytes | None:
    """The colour profile that the file embeds, or one made from its gamma and primaries. None for sRGB."""
    if b"cICP" in chunks:
        if chunks[b"cICP"][0] == _SRGB_CODE_POINTS:
            return None
        raise _unsupported("declares the colours of video (cICP) other than sRGB")
    if b"iCCP" in chunks:
        _, _, compressed = chunks[b"iCCP"][0].partition(b"\0")
        try:
            return zlib.decompressobj().decompress(compressed[1:], MAX_PROFILE_BYTES)
        except zlib.error:
            return None
    if b"sRGB" in chunks or (b"gAMA" not in chunks and b"cHRM" not in chunks):
        return None
    gamma = _USUAL_GAMMA
    if b"gAMA" in chunks and len(chunks[b"gAMA"][0]) == 4:
        gamma = int.from_bytes(chunks[b"gAMA"][0], "big")
    usual = tuple(round(100_000 * value) for x, y in (SRGB_PRIMARIES[3], *SRGB_PRIMARIES[:3]) for value in (x, y))
    places = usual
    if b"cHRM" in chunks and len(chunks[b"cHRM"][0]) == 32:
        places = struct.unpack(">8I", chunks[b"cHRM"][0])
    same_places = all(abs(a - b) <= _CHROMATICITY_TOLERANCE for a, b in zip(places, usual, strict=True))
    if same_places and abs(gamma - _USUAL_GAMMA) <= _GAMMA_TOLERANCE:
        return None
    pairs = [(places[number] / 100_000, places[number + 1] / 100_000) for number in range(0, 8, 2)]
    try:
        return matrix_profile([*pairs[1:], pairs[0]], 100_000 / gamma)
    except (ValueError, ZeroDivisionError):
        raise _unsupported("declares a gamma or primaries that no colour space has") from None


def _significant_bits(chunks: dict[bytes, list[bytes]]) -> int | None:
    """Bits of each colour that the file says are significant. None where it does not say, or they differ."""
    colours = 3 if chunks[b"IHDR"][0][9] & _COLOUR_BIT else 1
    stated = set(chunks[b"sBIT"][0][:colours]) if b"sBIT" in chunks else set[int]()
    return stated.pop() if len(stated) == 1 and 0 < min(stated) <= 16 else None


def _orientation(chunks: dict[bytes, list[bytes]]) -> Any:
    content = chunks.get(b"eXIf", [b""])[0]
    if not content or len(content) > _MAX_EXIF:
        return 1
    exif = Image.Exif()
    try:
        exif.load(b"Exif\0\0" + content)
    except MemoryError:
        raise
    except Exception:
        return 1
    return orientation_of_exif(exif)


def _for_decoder(chunks: dict[bytes, list[bytes]]) -> bytes:
    """A PNG of the chunks that OpenCV needs: others could only harm."""
    parts = [_SIGNATURE]
    for kind, contents in (
        (b"IHDR", chunks[b"IHDR"]),
        (b"PLTE", chunks.get(b"PLTE", [])),
        (b"IDAT", chunks[b"IDAT"]),
        (b"IEND", [b""]),
    ):
        for content in contents:
            parts += [len(content).to_bytes(4, "big"), kind, content]
            parts.append(zlib.crc32(content, zlib.crc32(kind)).to_bytes(4, "big"))
    return b"".join(parts)
