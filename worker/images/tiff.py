"""TIFF, read with tifffile and decoded with imagecodecs, strip by strip, so that every error of a decoder is heard.

OpenCV swallows what its library reports, multiplies colours by transparency, and reads samples of 14 bits as dark ones.
tifffile's own assembly pads and cuts strips of the wrong length in silence; here each must have exactly the bytes that
its pixels need.
"""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any, cast

import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from db.status import FailureCode
from worker.errors import ImageFaultError
from worker.images.colour import RGBImage, cmyk_to_srgb, to_srgb
from worker.images.jpeg import jpeg_damage
from worker.images.opencv import MAX_IMAGE_PIXELS
from worker.images.orientation import upright
from worker.images.samples import scale_to_8_bits, white_of_16_bits
from worker.images.tiff_structure import refuse_broken_structure

# It would write what it finds odd, with the file's texts, to standard error.
logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)

Samples = npt.NDArray[np.unsignedinteger[Any]]

_NONE, _JPEG = 1, 7
_LZW, _PACKBITS = 5, 32773
#: Deflate by its two numbers.
_DEFLATE = (8, 32946)
#: Compressions that are not decoded, by name. Others are named by tifffile.
_COMPRESSION_NAMES = {
    2: "CCITT", 3: "CCITT fax", 4: "CCITT fax", 6: "JPEG of the old kind", 33003: "JPEG 2000", 33004: "JPEG 2000",
    33005: "JPEG 2000", 34712: "JPEG 2000", 34713: "Nikon raw", 34887: "LERC", 34892: "lossy JPEG of a DNG",
    34925: "LZMA", 34933: "PNG", 34934: "JPEG XR", 50000: "Zstandard", 50001: "WebP", 50002: "JPEG XL",
    52546: "JPEG XL",
}  # fmt: skip
#: Photometric interpretations (TIFF 6.0, section 8, and later ones).
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_PHOTOMETRIC_NAMES = {
    4: "a transparency mask", 8: "CIE L*a*b* colours", 9: "ICC L*a*b* colours", 10: "ITU L*a*b* colours",
    32803: "the raw samples of a camera", 34892: "the raw samples of a camera", 32844: "CIE Log L",
    32845: "CIE Log Luv", 51177: "a depth map",
}  # fmt: skip
#: Least samples of a pixel for these.
_COLOURS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3}
#: Strips or tiles that a picture may have, samples of a pixel, and bits of a sample.
_MAX_PIECES, _MAX_SAMPLES, _MAX_BITS = 100_000, 8, 16
#: What a strip may decode to beyond its pixels before it is refused.
_SLACK_BYTES = 4_096
_DNG, _MAX_SAMPLE_VALUE, _PROFILE = 50706, 281, 34675
#: A sample's kind: unsigned, or not stated, which is read as unsigned.
_UNSIGNED = (1, 4)
#: The first extra sample is transparency by which the colours were multiplied.
_ASSOCIATED_ALPHA = 1


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """How the samples of a picture lie in its file."""

    height: int
    width: int
    #: Samples of a pixel, and how many of them a strip or tile has together.
    samples: int
    together: int
    bits: int
    #: Rows and columns of a strip or tile.
    rows: int
    columns: int
    compression: int
    photometric: int
    differences: bool
    reversed_bits: bool
    byte_order: str

    @property
    def tiled(self) -> bool:
        return self.columns != self.width


def decode_tiff(data: bytes) -> RGBImage:
    """Decode a TIFF with one picture: (height, width, 3), uint8, sRGB, upright. Transparency is dropped.

    Raises:
        ImageFaultError: as `worker.images.decode.decode`.
        MemoryError: there is not enough memory for the pixels.
    """
    refuse_broken_structure(data)
    try:
        with tifffile.TiffFile(BytesIO(data)) as file:
            return _decode_page(data, cast("tifffile.TiffPage", file.pages[0]))
    except (ImageFaultError, MemoryError):
        raise
    except Exception:
        # Of a damaged directory tifffile raises a dozen classes.
        raise _damaged("its directory cannot be read") from None


def _decode_page(data: bytes, page: tifffile.TiffPage) -> RGBImage:
    layout = _layout(page)
    samples = _assemble(data, page, layout)
    white = _white(page, layout, samples)
    profile = page.tags.valueof(_PROFILE)
    profile = bytes(profile) if isinstance(profile, bytes | tuple | np.ndarray) else None
    if layout.photometric == _PALETTE:
        image = _through_palette(samples[..., 0], page)
    else:
        image = scale_to_8_bits(samples, white)
        if layout.photometric == _WHITE_IS_ZERO:
            image = 255 - image
        if layout.photometric == _CMYK:
            image = _from_cmyk(image, profile)
            profile = None
    if image.shape[2] < 3:
        image = np.repeat(image[..., :1], 3, axis=2)
    image = upright(np.ascontiguousarray(image[..., :3]), page.tags.valueof(274, 1))
    return to_srgb(image, profile, deep=layout.bits > 8)


def _layout(page: tifffile.TiffPage) -> _Layout:
    """The layout of a picture that is decoded, checked."""
    # Where the tag is missing, tifffile fills it in.
    if 262 not in page.tags:
        raise _unsupported("does not state its photometric interpretation")
    compression, photometric = int(page.compression), int(page.photometric)
    if _DNG in page.tags or photometric in (32803, 34892):
        raise _unsupported("holds the raw samples of a camera (DNG)")
    if compression not in (_NONE, _LZW, *_DEFLATE, _PACKBITS, _JPEG):
        name = _COMPRESSION_NAMES.get(compression, getattr(page.compression, "name", f"number {compression}"))
        raise _unsupported(f"is compressed as {name}")
    if photometric not in _COLOURS:
        raise _unsupported(f"holds {_PHOTOMETRIC_NAMES.get(photometric, f'colours of kind {photometric}')}")
    height, width, samples = int(page.imagelength), int(page.imagewidth), int(page.samplesperpixel)
    if int(page.imagedepth) != 1:
        raise _unsupported("holds a volume")
    if height <= 0 or width <= 0:
        raise _damaged("its header declares no pixels")
    if height * width > MAX_IMAGE_PIXELS:
        raise ImageFaultError(
            FailureCode.TOO_LARGE,
            f"the TIFF declares {width:,} x {height:,} pixels, the limit is {MAX_IMAGE_PIXELS:,} in all",
        )
    if not _COLOURS[photometric] <= samples <= _MAX_SAMPLES:
        raise _unsupported(f"has {samples} samples a pixel")
    if photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _PALETTE) and samples > 2:
        raise _unsupported(f"has {samples} samples a pixel and does not say that they are colours")
    bits = _bits(page)
    if photometric == _YCBCR and compression != _JPEG:
        raise _unsupported("holds YCbCr colours without JPEG")
    if compression == _JPEG and bits != 8:
        raise _unsupported(f"holds JPEG with samples of {bits} bits")
    if photometric == _PALETTE and bits > 8:
        raise _unsupported(f"has a palette of {bits} bits")
    if page.predictor not in (1, 2) or (page.predictor == 2 and bits not in (8, 16) and compression != _NONE):
        raise _unsupported("stores differences of a kind that is not read")
    if any(int(extra) == _ASSOCIATED_ALPHA for extra in page.extrasamples or ()):
        raise _unsupported("has colours that were multiplied by their transparency")
    together = samples if int(page.planarconfig or 1) == 1 else 1
    if compression == _JPEG and (together not in (1, 3) or (photometric == _YCBCR and together != 3)):
        raise _unsupported("holds JPEG with separate or additional samples")
    rows, columns = (
        (int(page.tilelength), int(page.tilewidth))
        if page.is_tiled
        else (min(int(page.rowsperstrip) or height, height), width)
    )
    if rows <= 0 or columns <= 0 or rows * columns > 2 * MAX_IMAGE_PIXELS or rows * columns * together * bits > 2**34:
        raise _damaged("its strips or tiles have an impossible size")
    return _Layout(
        height=height,
        width=width,
        samples=samples,
        together=together,
        bits=bits,
        rows=rows,
        columns=columns,
        compression=compression,
        photometric=photometric,
        # Of the others libtiff ignores the tag.
        differences=page.predictor == 2 and compression in (_LZW, *_DEFLATE),
        reversed_bits=int(page.fillorder) == 2 and compression != _JPEG,
        byte_order=page.parent.byteorder,
    )


def _bits(page: tifffile.TiffPage) -> int:
    """Bits of a sample, one number for all, of unsigned integers."""
    kinds = page.tags.valueof(339, 1)
    for kind in kinds if isinstance(kinds, tuple) else (kinds,):
        if int(kind) not in _UNSIGNED:
            name = {2: "signed integers", 3: "real numbers"}.get(int(kind), "complex numbers")
            raise _unsupported(f"has samples that are {name}, and what is white among them is not known")
    found = page.tags.valueof(258, 1)
    depths = {int(bits) for bits in (found if isinstance(found, tuple) else (found,))}
    if len(depths) != 1:
        raise _unsupported("has samples of different depths")
    (bits,) = depths
    if not 1 <= bits <= _MAX_BITS:
        raise _unsupported(f"has samples of {bits} bits")
    return bits


def _white(page: tifffile.TiffPage, layout: _Layout, samples: Samples) -> int:
    """The value of white, as the file states it.

    The tag MaxSampleValue is meant for statistics, but is what cameras with 10, 12 or 14 bits write their white into.
    It is taken for white where it is all ones, and cannot be just the greatest sample of a dark picture by chance.
    """
    if layout.bits != 16:
        return (1 << layout.bits) - 1
    stated = page.tags.valueof(_MAX_SAMPLE_VALUE)
    stated = max(stated) if isinstance(stated, tuple) and stated else stated
    if isinstance(stated, int) and 255 <= stated <= 65535 and (stated + 1) & stated == 0 and samples.max() <= stated:
        return stated
    colours = samples[..., : _COLOURS[layout.photometric]]
    return white_of_16_bits(colours.astype(np.uint16, copy=False), "TIFF")


def _assemble(data: bytes, page: tifffile.TiffPage, layout: _Layout) -> Samples:
    """All samples: (height, width, samples), uint8 or uint16."""
    across, down = math.ceil(layout.width / layout.columns), math.ceil(layout.height / layout.rows)
    planes = layout.samples // layout.together
    pieces = across * down * planes
    offsets, counts = page.dataoffsets, page.databytecounts
    if pieces > _MAX_PIECES:
        raise _unsupported(f"is stored in more than {_MAX_PIECES:,} pieces")
    if len(offsets) != pieces or len(counts) != pieces:
        raise _damaged(f"its pixels need {pieces:,} strips or tiles, it lists {len(offsets):,}")
    decode = _jpeg_decoder(page, layout) if layout.compression == _JPEG else _decoder(layout)
    image = np.empty((layout.height, layout.width, layout.samples), np.uint8 if layout.bits <= 8 else np.uint16)
    for (plane, top, left), offset, count in zip(_places(layout, planes), offsets, counts, strict=True):
        if not 0 < count <= len(data) - offset or offset <= 0:
            raise _damaged("a strip or tile lies outside the file")
        height = min(layout.rows, layout.height - top)
        width = min(layout.columns, layout.width - left)
        piece = decode(data[offset : offset + count], height)
        first = plane * layout.together
        image[top : top + height, left : left + width, first : first + layout.together] = piece[:height, :width]
    return image


def _places(layout: _Layout, planes: int) -> Iterator[tuple[int, int, int]]:
    """Plane, top and left of each strip or tile."""
    for plane in range(planes):
        for top in range(0, layout.height, layout.rows):
            for left in range(0, layout.width, layout.columns):
                yield plane, top, left


Decoder = Callable[[bytes, int], Samples]


def _decoder(layout: _Layout) -> Decoder:
    """Decodes a strip or tile: takes its bytes and the rows that it must have, gives (rows, columns, samples)."""
    row_bytes = math.ceil(layout.columns * layout.together * layout.bits / 8)

    def decode(piece: bytes, height: int) -> Samples:
        if layout.reversed_bits:
            piece = bytes(imagecodecs.bitorder_decode(piece))
        # A tile always has all its rows; the last strip may have them.
        allowed = {layout.rows * row_bytes} if layout.tiled else {height * row_bytes, layout.rows * row_bytes}
        raw = _decompress(piece, layout.compression, max(allowed))
        if layout.compression == _NONE and not layout.tiled and len(raw) > height * row_bytes:
            # Some writers count the padding between strips.
            raw = raw[: height * row_bytes]
        if len(raw) not in allowed:
            raise _damaged(f"a strip or tile decodes to {len(raw):,} bytes, its pixels need {height * row_bytes:,}")
        return _unpack(raw, layout, len(raw) // row_bytes)

    return decode


def _decompress(piece: bytes, compression: int, most: int) -> bytes:
    """The bytes of a strip or tile, at most a little more than ``most``."""
    if compression == _NONE:
        return piece
    try:
        if compression in _DEFLATE:
            return bytes(imagecodecs.zlib_decode(piece, out=most))
        decode = imagecodecs.lzw_decode if compression == _LZW else imagecodecs.packbits_decode
        # With room for more: a damaged strip may decode to too many bytes.
        return bytes(decode(piece, out=most + _SLACK_BYTES))
    except MemoryError:
        raise
    except Exception:
        raise _damaged("the decoder of a strip or tile failed") from None


def _unpack(raw: bytes, layout: _Layout, rows: int) -> Samples:
    shape = (rows, layout.columns, layout.together)
    if layout.bits == 8:
        samples: Samples = np.frombuffer(raw, np.uint8).reshape(shape)
    elif layout.bits == 16:
        samples = np.frombuffer(raw, ">u2" if layout.byte_order == ">" else "<u2").reshape(shape)
        samples = samples.astype(np.uint16, copy=False)
    else:
        kind = np.uint8 if layout.bits < 8 else np.uint16
        samples = imagecodecs.packints_decode(
            raw, np.dtype(kind), layout.bits, runlen=layout.columns * layout.together
        ).reshape(shape)
    return imagecodecs.delta_decode(samples, axis=1) if layout.differences else samples


def _jpeg_decoder(page: tifffile.TiffPage, layout: _Layout) -> Decoder:
    tables = page.jpegtables
    space = {_YCBCR: "YCBCR", _RGB: "RGB"}.get(layout.photometric, "GRAYSCALE")
    if layout.photometric not in (_YCBCR, _RGB, _BLACK_IS_ZERO):
        raise _unsupported("holds JPEG in colours that are not read")
    if layout.together == 1:
        space = "GRAYSCALE"

    def decode(piece: bytes, height: int) -> Samples:
        whole = piece if not tables else piece[:2] + tables[2:-2] + piece[2:]
        if (damage := jpeg_damage(whole)) is not None:
            raise _damaged(f"the decoder of a JPEG in it reports: {damage}")
        try:
            pixels = imagecodecs.jpeg8_decode(
                whole, colorspace=space, outcolorspace="RGB" if layout.together == 3 else "GRAYSCALE"
            )
        except MemoryError:
            raise
        except Exception:
            raise _damaged("the decoder of a JPEG in it failed") from None
        pixels = pixels.reshape((*pixels.shape[:2], layout.together))
        if pixels.shape[0] < height or pixels.shape[1] < layout.columns:
            raise _damaged("a JPEG in it has fewer pixels than it declares")
        return pixels

    return decode


def _through_palette(indices: Samples, page: tifffile.TiffPage) -> RGBImage:
    table = np.asarray(page.colormap if page.colormap is not None else ())
    if table.ndim != 2 or len(table) != 3 or int(indices.max()) >= table.shape[1]:
        raise _damaged("its palette is missing or too short")
    # Colours of 16 bits, whose upper byte is the one of 8, whether a writer spreads them or not. Some forget to shift.
    colours = (table if int(table.max()) <= 255 else table >> 8).astype(np.uint8)
    return np.stack([colour[indices] for colour in colours], axis=-1)


def _from_cmyk(image: npt.NDArray[np.uint8], profile: bytes | None) -> RGBImage:
    height, width = image.shape[:2]
    inks = Image.frombytes("CMYK", (width, height), np.ascontiguousarray(image[..., :4]).tobytes())
    converted = cmyk_to_srgb(inks, profile) if profile else None
    if converted is None:
        raise _unsupported("has four colours (CMYK) without a colour profile that says which inks")
    return converted


def _unsupported(what: str) -> ImageFaultError:
    return ImageFaultError(
        FailureCode.UNSUPPORTED_FORMAT, f"the TIFF {what}. Save it as an RGB TIFF of 8 bits, or as PNG"
    )


def _damaged(what: str) -> ImageFaultError:
    return ImageFaultError(FailureCode.TRUNCATED, f"the TIFF is cut short or damaged: {what}")
