"""Files of every kind that docs/formats.md lists, made from one synthetic picture, and what dermq makes of them."""

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO

import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from worker.images.opencv import cv2
from worker.synthetic.lesion import draw_lesion

Pixels = npt.NDArray[np.uint8]

PICTURE = draw_lesion(5, width=150, height=98)
GREY = PICTURE[..., 1].copy()
#: The grey picture as three equal channels.
GREY_RGB = np.repeat(GREY[..., None], 3, axis=2)
ALPHA = np.tile(np.linspace(0, 255, PICTURE.shape[1]).astype(np.uint8), (PICTURE.shape[0], 1))
READ = "read"
TRUNCATED, UNSUPPORTED, TOO_LARGE = "truncated", "unsupported_format", "too_large"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A file of one kind.

    Args:
        row: the row of docs/formats.md that it belongs to.
        name: what is special about it.
        make: makes the file.
        outcome: `READ`, or the failure code.
        expected: what is read. None where the outcome is a refusal, or for a lossy format, which `second` reads.
        within: greatest difference from what is expected, or from the second reading.
        second: reads the file with a library that dermq does not use for it.
        says: a word that a refusal must contain.
    """

    row: str
    name: str
    make: Callable[[], bytes]
    outcome: str = READ
    expected: Pixels | None = None
    within: int = 0
    second: Callable[[bytes], Pixels] | None = None
    says: str = ""


# ---- writers


def tiff(samples: npt.NDArray[np.generic], **options: object) -> bytes:
    """Written by tifffile."""
    file = BytesIO()
    options.setdefault("photometric", "rgb" if samples.ndim == 3 else "minisblack")
    tifffile.imwrite(file, samples, **options)  # type: ignore[arg-type]
    return file.getvalue()


def pillow(kind: str, samples: Pixels, *, mode: str | None = None, **options: object) -> bytes:
    """Written by Pillow."""
    file = BytesIO()
    image = Image.fromarray(samples)
    (image.convert(mode) if mode else image).save(file, kind, **options)
    return file.getvalue()


def opencv(suffix: str, samples: npt.NDArray[np.generic], *options: int) -> bytes:
    """Written by OpenCV, whose order of channels is reversed here."""
    ordered = samples if samples.ndim == 2 else np.dstack([samples[..., 2::-1], samples[..., 3:]])
    written, data = cv2.imencode(suffix, ordered, list(options))
    assert written
    return data.tobytes()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_png_chunk(png: bytes, kind: bytes, content: bytes) -> bytes:
    """Put a chunk behind the header of a PNG."""
    return png[:33] + png_chunk(kind, content) + png[33:]


def png(samples: npt.NDArray[np.generic], *chunks: tuple[bytes, bytes]) -> bytes:
    data = opencv(".png", samples)
    for kind, content in chunks:
        data = with_png_chunk(data, kind, content)
    return data


def with_segment(jpeg: bytes, marker: int, content: bytes) -> bytes:
    """Put a segment behind the first marker of a JPEG."""
    return jpeg[:2] + struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content + jpeg[2:]


def bmp(samples: Pixels, *, masks: Sequence[int] = (), header: int = 40, profile: bytes = b"") -> bytes:
    """A BMP of 32 bits; masks say where red, green, blue (and transparency) are."""
    height, width = samples.shape[:2]
    shifts = [mask.bit_length() - 8 for mask in masks] or [16, 8, 0]
    words = sum(samples[::-1, :, number].astype(np.uint32) << shift for number, shift in enumerate(shifts[:3]))
    pixels = np.asarray(words, "<u4").tobytes()
    behind = struct.pack(f"<{len(masks)}I", *masks)
    after_header = b"" if header > 40 else behind
    start = 14 + header + len(after_header)
    head = struct.pack("<IiiHHIIiiII", header, width, height, 1, 32, 3 if masks else 0, len(pixels), 2835, 2835, 0, 0)
    if header > 40:
        head += behind.ljust(16, b"\0")
        if header == 124:
            kind = b"DEBM" if profile else b"BGRs"
            head += kind + bytes(48) + struct.pack("<IIII", 4, start - 14 + len(pixels), len(profile), 0)
        head = head.ljust(header, b"\0")
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + head + after_header + pixels + profile


def tiled_by_hand(data: bytes, compression: int, *, photometric: int = 2) -> bytes:
    """A TIFF whose one strip holds a file of another format."""
    file = BytesIO()
    tifffile.imwrite(file, PICTURE, photometric="rgb")
    whole = bytearray(file.getvalue())
    with tifffile.TiffFile(BytesIO(whole)) as opened:
        tags = opened.pages[0].tags
        places = {code: tags[code].valueoffset for code in (259, 262, 273, 279)}
        rows = tags[273].count
    assert rows == 1
    at = len(whole) + len(whole) % 2
    whole = whole.ljust(at, b"\0") + data
    struct.pack_into("<H", whole, places[259], compression)
    struct.pack_into("<H", whole, places[262], photometric)
    struct.pack_into("<I", whole, places[273], at)
    struct.pack_into("<I", whole, places[279], len(data))
    return bytes(whole)


# ---- second readings


def by_pillow(data: bytes) -> Pixels:
    with Image.open(BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def by_opencv(data: bytes) -> Pixels:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert image is not None
    return np.asarray(image, np.uint8)


# ---- colour


def icc_profile(primaries: Sequence[tuple[float, float]], gamma: float) -> bytes:
    """From the package's own maker of profiles; the pixels that it gives are compared with `converted`."""
    from worker.images.colour import matrix_profile

    return matrix_profile(primaries, gamma)


DISPLAY_P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.3127, 0.3290))
ADOBE_RGB = ((0.640, 0.330), (0.210, 0.710), (0.150, 0.060), (0.3127, 0.3290))
PROPHOTO = ((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001), (0.3457, 0.3585))
SRGB = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), (0.3127, 0.3290))


def converted(pixels: Pixels, primaries: Sequence[tuple[float, float]], gamma: float) -> Pixels:
    """To sRGB, by the textbook (Lindbloom) and without a colour library."""

    def to_d50(places: Sequence[tuple[float, float]]) -> npt.NDArray[np.float64]:
        xyz = np.array([[x / y, 1, (1 - x - y) / y] for x, y in places]).T
        matrix = xyz[:, :3] * np.linalg.solve(xyz[:, :3], xyz[:, 3])
        bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
        white = bradford @ xyz[:, 3]
        scale = np.diag(bradford @ np.array([0.96422, 1.0, 0.82521]) / white)
        return np.linalg.inv(bradford) @ scale @ bradford @ matrix

    light = (pixels / 255.0) ** gamma @ (np.linalg.inv(to_d50(SRGB)) @ to_d50(primaries)).T
    light = light.clip(0, 1)
    values = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(255 * values), np.uint8)


def exif_of_adobe_rgb() -> bytes:
    """EXIF whose interoperability index is R03, as a camera set to Adobe RGB writes it beside no profile."""

    def folder(tag: int, kind: int, count: int, value: bytes) -> bytes:
        return struct.pack("<HHHI", 1, tag, kind, count) + value + bytes(4)

    first, second = folder(0x8769, 4, 1, struct.pack("<I", 26)), folder(0xA005, 4, 1, struct.pack("<I", 44))
    return b"Exif\0\0II*\0\x08\0\0\0" + first + second + folder(1, 2, 4, b"R03\0")


# ---- samples of more than 8 bits

WIDE = PICTURE.astype(np.uint16) * 257
#: 14 bits in 16, as medical cameras write them.
FOURTEEN = WIDE >> 2
#: What they are: the picture, up to rounding.
DARK = (PICTURE * 0.12).astype(np.uint8)


def packed(bits: int) -> bytes:
    """A TIFF whose samples of 10, 12 or 14 bits follow each other without gaps."""
    return tiff(WIDE >> (16 - bits), bitspersample=bits)


def max_sample_value(white: int) -> list[tuple[object, ...]]:
    return [(281, "H", 3, (white,) * 3, True)]


JPEG = opencv(".jpg", PICTURE, cv2.IMWRITE_JPEG_QUALITY, 92)


def jpeg_with_frame(marker: int) -> bytes:
    """The JPEG under another frame marker: its header is that of the other kind."""
    return JPEG.replace(b"\xff\xc0", bytes((0xFF, marker)), 1)


def _cases() -> list[Case]:
    p3, adobe = icc_profile(DISPLAY_P3, 2.2), icc_profile(ADOBE_RGB, 563 / 256)
    prophoto = icc_profile(PROPHOTO, 1.8)
    rows: list[Case] = []

    def read(row: str, name: str, make: Callable[[], bytes], expected: Pixels | None = PICTURE, **more: object) -> None:
        rows.append(Case(row=row, name=name, make=make, expected=expected, **more))  # type: ignore[arg-type]

    def refuse(row: str, name: str, make: Callable[[], bytes], outcome: str = UNSUPPORTED, says: str = "") -> None:
        rows.append(Case(row=row, name=name, make=make, outcome=outcome, says=says))

    # JPEG
    row = "JPEG, 8 bits, colour or grey"
    read(row, "baseline", lambda: JPEG, None, second=by_pillow)
    read(row, "grey", lambda: opencv(".jpg", GREY), None, second=by_pillow)
    for name, options in {
        "progressive": (cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        "restart markers": (cv2.IMWRITE_JPEG_RST_INTERVAL, 4),
        "4:4:4": (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111),
    }.items():
        read(row, name, lambda o=options: opencv(".jpg", PICTURE, *o), None, second=by_pillow)  # type: ignore[misc]
    turned = with_segment(JPEG, 0xE1, exif_orientation(3))
    read(row, "turned by a tag of 32 bits", lambda: turned, np.rot90(by_pillow(JPEG), 2))
    read(row, "stored as RGB", lambda: pillow("JPEG", PICTURE, keep_rgb=True, quality=95), None, second=by_pillow)
    row = "JPEG, zeros before or behind its end"
    read(row, "zeros before its end", lambda: JPEG[:-2] + bytes(700) + JPEG[-2:], by_pillow(JPEG))
    read(row, "zeros behind its end", lambda: JPEG + bytes(700), by_pillow(JPEG))
    row = "JPEG, damaged"
    refuse(row, "junk before its end", lambda: JPEG[:-2] + b"junk" * 100 + JPEG[-2:], TRUNCATED)
    refuse(row, "cut short", lambda: JPEG[: len(JPEG) // 2], TRUNCATED)
    refuse(row, "a sector of zeros", lambda: JPEG[:2000] + bytes(512) + JPEG[2512:], TRUNCATED)
    row = "JPEG, lossless, hierarchical, JPEG-LS, or more than 8 bits"
    refuse(row, "lossless", lambda: imagecodecs.ljpeg_encode(GREY.astype(np.uint16)), says="lossless")
    refuse(row, "lossless by its frame", lambda: jpeg_with_frame(0xC3), says="lossless")
    refuse(row, "hierarchical", lambda: jpeg_with_frame(0xC5), says="hierarchical")
    refuse("JPEG, thousands of scans", "at 1024 x 1024", lambda: many_scans(), says="scans")
    refuse(row, "JPEG-LS", lambda: imagecodecs.jpegls_encode(PICTURE), says="JPEG-LS")
    twelve = (PICTURE.astype(np.uint16) * 257) >> 4
    refuse(row, "12 bits", lambda: imagecodecs.jpeg8_encode(twelve, bitspersample=12), says="12 bits")
    row = "JPEG, CMYK with Adobe's marker"
    read(row, "without a profile", lambda: pillow("JPEG", PICTURE, mode="CMYK", quality=95), None, second=by_pillow)
    row = "JPEG, CMYK without Adobe's marker"
    refuse(row, "no marker", lambda: without_adobe(pillow("JPEG", PICTURE, mode="CMYK")), says="CMYK")

    # Profiles
    row = "Colour profile in a JPEG, PNG, TIFF, BMP or WebP"
    as_p3 = converted(PICTURE, DISPLAY_P3, 2.2)
    as_adobe = converted(PICTURE, ADOBE_RGB, 563 / 256)
    as_prophoto = converted(PICTURE, PROPHOTO, 1.8)
    read(row, "P3 in PNG", lambda: pillow("PNG", PICTURE, icc_profile=p3), as_p3, within=2)
    read(row, "Adobe RGB in PNG", lambda: pillow("PNG", PICTURE, icc_profile=adobe), as_adobe, within=2)
    read(row, "ProPhoto in TIFF", lambda: tiff(PICTURE, iccprofile=prophoto), as_prophoto, within=2)
    read(row, "P3 in TIFF of 16 bits", lambda: tiff(WIDE, iccprofile=p3), as_p3, within=2)
    read(row, "P3 in WebP", lambda: pillow("WEBP", PICTURE, lossless=True, icc_profile=p3), as_p3, within=2)
    masks = (0xFF0000, 0xFF00, 0xFF)
    read(row, "P3 in BMP", lambda: bmp(PICTURE, header=124, masks=masks, profile=p3), as_p3, within=2)
    read(
        row,
        "P3 in JPEG",
        lambda: pillow("JPEG", PICTURE, quality=92, icc_profile=p3),
        converted(by_pillow(pillow("JPEG", PICTURE, quality=92)), DISPLAY_P3, 2.2),
        within=2,
    )
    linear = converted(GREY_RGB, SRGB, 1.0)
    read(row, "grey of gamma 1 in PNG", lambda: png(GREY, (b"gAMA", struct.pack(">I", 100_000))), linear, within=2)
    read(
        row,
        "Adobe RGB by PNG's gAMA and cHRM",
        lambda: png(PICTURE, (b"gAMA", struct.pack(">I", 45_470)), (b"cHRM", chromaticities(ADOBE_RGB))),
        as_adobe,
        within=2,
    )
    read(
        row,
        "Adobe RGB by EXIF alone",
        lambda: pillow("JPEG", PICTURE, quality=92, exif=exif_of_adobe_rgb()),
        converted(by_pillow(pillow("JPEG", PICTURE, quality=92)), ADOBE_RGB, 563 / 256),
        within=2,
    )
    grey_profile = grey_icc_profile()
    read(row, "a grey one in colours is passed over", lambda: pillow("PNG", PICTURE, icc_profile=grey_profile))
    read(row, "sRGB changes nothing", lambda: pillow("PNG", PICTURE, icc_profile=srgb_profile()))
    read(row, "a broken one is passed over", lambda: pillow("PNG", PICTURE, icc_profile=b"broken" * 30))
    row = "More than 8 bits in linear light"
    refuse(row, "PNG", lambda: png(WIDE, (b"gAMA", struct.pack(">I", 100_000))), says="linear light")
    refuse(row, "TIFF", lambda: tiff(WIDE, iccprofile=icc_profile(SRGB, 1.0)), says="linear light")
    row = "PNG with the colours of video (cICP), other than sRGB"
    refuse(row, "BT.2100", lambda: png(PICTURE, (b"cICP", bytes((9, 16, 0, 1)))), says="cICP")

    # PNG
    row = "PNG, 1 to 8 bits, with or without palette and transparency"
    read(row, "RGB", lambda: png(PICTURE), second=by_pillow)
    read(row, "grey", lambda: png(GREY), GREY_RGB, second=by_pillow)
    read(row, "transparency", lambda: png(np.dstack([PICTURE, ALPHA])))
    quantised = Image.fromarray(PICTURE).quantize(64)
    as_palette = np.asarray(quantised.convert("RGB"))
    read(row, "palette", lambda: saved(quantised, "PNG"), as_palette, second=by_pillow)
    read(row, "interlaced", lambda: interlaced_png(), GREY_RGB, second=by_pillow)
    row = "PNG, 16 bits"
    read(row, "all 16 used", lambda: png(WIDE))
    read(row, "all 16 used, grey", lambda: png(WIDE[..., 1].copy()), GREY_RGB)
    read(row, "14 bits, sBIT", lambda: png(FOURTEEN, (b"sBIT", bytes((14,) * 3))), within=1)
    read(row, "dark, spread, sBIT", lambda: png(dark_spread(14), (b"sBIT", bytes((14,) * 3))), DARK, within=1)
    twelve_and_eight = np.dstack([WIDE[..., 1] >> 4, np.full(GREY.shape, 65535, np.uint16)])
    read(
        row,
        "grey of 12 bits beside alpha of 8, sBIT",
        lambda: grey_alpha_png(twelve_and_eight, 12, 8),
        GREY_RGB,
        within=1,
    )
    read(row, "dark, of 8 bits", lambda: png(DARK.astype(np.uint16) * 257), DARK)
    row = "PNG or TIFF, 16 bits with empty upper bits, white not stated"
    refuse(row, "14 bits in PNG", lambda: png(FOURTEEN), says="white")
    refuse(row, "12 bits in PNG, with a hot pixel", lambda: png(with_hot_pixel(WIDE >> 4)), says="white")
    refuse(row, "12 bits in TIFF", lambda: tiff(WIDE >> 4), says="white")
    refuse(
        row, "greatest value stated in TIFF", lambda: tiff(WIDE >> 4, extratags=max_sample_value(3817)), says="white"
    )
    row = "PNG, damaged"
    whole = png(PICTURE)
    refuse(row, "cut short", lambda: whole[:-300], TRUNCATED)
    refuse(row, "a changed byte", lambda: whole[:900] + bytes((whole[900] ^ 1,)) + whole[901:], TRUNCATED)
    refuse(row, "a chunk of 4 GB", lambda: whole[:33] + b"\xff\xff\xff\xf0tEXt" + whole[33:], TRUNCATED)

    # TIFF
    row = "TIFF, 8 or 16 bits, uncompressed, LZW, deflate or PackBits"
    for compression in (None, "lzw", "zlib", "packbits"):
        word = compression or "no compression"
        second = None if compression == "packbits" else by_pillow
        read(row, word, lambda c=compression: tiff(PICTURE, compression=c), second=second)  # type: ignore[misc]
        read(row, f"{word}, 16 bits", lambda c=compression: tiff(WIDE, compression=c))  # type: ignore[misc]
        read(row, f"{word}, grey", lambda c=compression: tiff(GREY, compression=c), GREY_RGB)  # type: ignore[misc]
    read(row, "differences", lambda: tiff(PICTURE, compression="lzw", predictor=True), second=by_pillow)
    read(row, "differences of 16 bits", lambda: tiff(WIDE, compression="zlib", predictor=True))
    read(row, "tiles", lambda: tiff(PICTURE, compression="zlib", tile=(32, 48)), second=by_pillow)
    read(row, "planes", lambda: tiff(PICTURE.transpose(2, 0, 1), planarconfig="separate"), second=by_pillow)
    read(row, "PackBits with a predictor, which means nothing", lambda: packbits_with_predictor(), second=by_pillow)
    read(row, "strips of 7 rows", lambda: tiff(PICTURE, compression="lzw", rowsperstrip=7), second=by_pillow)
    read(row, "big-endian BigTIFF", lambda: tiff(WIDE, byteorder=">", bigtiff=True))
    read(row, "white is zero", lambda: tiff(255 - GREY, photometric="miniswhite"), GREY_RGB, second=by_pillow)
    read(row, "transparency", lambda: tiff(np.dstack([PICTURE, ALPHA]), extrasamples=["unassalpha"]))
    read(row, "turned", lambda: tiff(PICTURE, extratags=[(274, "H", 1, 3, True)]), np.rot90(PICTURE, 2))
    read(row, "palette", lambda: saved(quantised, "TIFF"), as_palette, second=by_pillow)
    row = "TIFF, 9 to 15 bits, packed or with MaxSampleValue"
    for bits in (10, 12, 14):
        read(row, f"{bits} bits packed", lambda b=bits: packed(b), within=1)  # type: ignore[misc]
    read(row, "14 bits", lambda: tiff(FOURTEEN, extratags=max_sample_value(16383)), within=1)
    read(row, "10 bits", lambda: tiff(WIDE >> 6, extratags=max_sample_value(1023)), within=1)
    read(
        row,
        "dark, 16 bits",
        lambda: tiff(DARK.astype("u2") * 257 + 3, extratags=max_sample_value(65535)),
        DARK,
        within=1,
    )
    row = "TIFF, JPEG"
    read(row, "YCbCr", lambda: tiff(PICTURE, compression="jpeg", photometric="ycbcr"), None, second=by_pillow)
    read(row, "RGB", lambda: tiff(PICTURE, compression="jpeg", photometric="rgb"), None, second=by_pillow)
    read(row, "grey", lambda: tiff(GREY, compression="jpeg"), None, second=by_pillow)
    row = "TIFF, JPEG 2000, PNG, WebP, Zstandard, fax or the old JPEG"
    refuse(row, "JPEG 2000", lambda: tiled_by_hand(imagecodecs.jpeg2k_encode(PICTURE), 34712), says="JPEG 2000")
    refuse(row, "PNG", lambda: tiled_by_hand(png(PICTURE), 34933), says="PNG")
    refuse(row, "WebP", lambda: tiled_by_hand(pillow("WEBP", PICTURE, lossless=True), 50001), says="WebP")
    refuse(row, "old JPEG", lambda: tiled_by_hand(JPEG, 6), says="JPEG of the old kind")
    refuse(row, "Zstandard", lambda: tiff(PICTURE, compression="zstd"), says="Zstandard")
    refuse(row, "unknown", lambda: tiled_by_hand(b"1234", 4711), says="4711")
    row = "TIFF, real or signed numbers, or more than 16 bits"
    refuse(row, "real", lambda: tiff((PICTURE / 255).astype(np.float32)), says="real numbers")
    refuse(row, "real, deflate", lambda: tiff((PICTURE / 255).astype("f4"), compression="zlib"), says="real numbers")
    refuse(row, "signed", lambda: tiff(PICTURE.astype(np.int16)), says="signed")
    refuse(row, "32 bits", lambda: tiff(PICTURE.astype(np.uint32)), says="32 bits")
    row = "TIFF, premultiplied, L*a*b*, raw, or CMYK without a profile"
    grey_alpha = np.dstack([GREY, ALPHA])
    refuse(row, "multiplied grey", lambda: tiff(grey_alpha, photometric="minisblack", extrasamples=["assocalpha"]))
    refuse(row, "multiplied", lambda: tiff(np.dstack([PICTURE, ALPHA]), extrasamples=["assocalpha"]), says="multiplied")
    refuse(row, "L*a*b*", lambda: tiff(PICTURE, photometric="cielab"), says="L*a*b*")
    refuse(row, "raw", lambda: tiff(GREY, photometric="cfa"), says="raw")
    refuse(row, "CMYK", lambda: tiff(np.dstack([PICTURE, GREY]), photometric="separated"), says="CMYK")
    row = "TIFF, several pages"
    refuse(row, "two", lambda: pages(PICTURE, PICTURE), says="several pages")
    row = "TIFF, damaged"
    for compression in ("lzw", "zlib", "packbits"):
        refuse(row, f"{compression}, a page of zeros", lambda c=compression: zeroed(c), TRUNCATED)  # type: ignore[misc]
    refuse(row, "cut short", lambda: tiff(PICTURE)[:-500], TRUNCATED)

    # BMP
    row = "BMP, 1 to 32 bits, run lengths and colour masks"
    read(row, "24 bits", lambda: opencv(".bmp", PICTURE), second=by_opencv)
    read(row, "8 bits", lambda: pillow("BMP", GREY), GREY_RGB, second=by_opencv)
    read(row, "palette", lambda: saved(quantised, "BMP"), as_palette, second=by_opencv)
    read(row, "32 bits", lambda: bmp(PICTURE), second=by_opencv)
    read(row, "masks as usual", lambda: bmp(PICTURE, masks=masks))
    read(row, "masks, red and blue exchanged", lambda: bmp(PICTURE, masks=masks[::-1]))
    read(row, "masks in a newer header", lambda: bmp(PICTURE, masks=(*masks[::-1], 0xFF000000), header=108))
    row = "BMP, damaged, or of other contents"
    refuse(row, "cut short", lambda: bmp(PICTURE)[:-500], TRUNCATED)
    refuse(row, "pixels in its header", lambda: masked_bmp_at(54), TRUNCATED)
    refuse(row, "JPEG in it", lambda: changed_bmp(30, 4), says="JPEG")

    # WebP
    row = "WebP, lossy or lossless"
    read(row, "lossless", lambda: pillow("WEBP", PICTURE, lossless=True), second=by_opencv)
    read(row, "transparency", lambda: pillow("WEBP", np.dstack([PICTURE, ALPHA]), lossless=True, exact=True))
    read(row, "lossy", lambda: pillow("WEBP", PICTURE, quality=90), None, second=by_opencv)
    row = "WebP, cut short"
    refuse(row, "cut short", lambda: pillow("WEBP", PICTURE, lossless=True)[:-500], TRUNCATED)
    row = "Animated PNG or WebP"
    frames = [Image.fromarray(PICTURE), Image.fromarray(255 - PICTURE)]
    for kind in ("PNG", "WEBP"):
        refuse(row, kind, lambda k=kind: saved(frames[0], k, save_all=True, append_images=frames[1:]), says="animated")  # type: ignore[misc]

    # Too large
    row = "More than 64 Mi pixels"
    for kind in ("PNG", "TIFF", "BMP", "WEBP"):
        refuse(row, kind, lambda k=kind: of_many_pixels(k), TOO_LARGE)  # type: ignore[misc]

    # What is no picture, or one that is not read
    row = "HEIC, AVIF, JPEG 2000, JPEG XL, GIF, PPM, camera raw, PSD, video"
    for name, data in {
        "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50),
        "AVIF": b"\0\0\0\x1cftypavif\0\0\0\0mif1avifmiaf" + bytes(50),
        "JPEG 2000": bytes(imagecodecs.jpeg2k_encode(PICTURE)),
        "GIF": pillow("GIF", GREY),
        "PPM": pillow("PPM", PICTURE),
        "CR2": b"II*\0\x10\0\0\0CR\x02\0" + bytes(200),
        "Photoshop": b"8BPS\0\x01" + bytes(100),
        "video": b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2" + bytes(50),
    }.items():
        refuse(row, name, lambda d=data: d, says=name)  # type: ignore[misc]
    row = "DICOM under any name, without the extra"
    refuse(row, "with its mark", lambda: bytes(128) + b"DICM" + bytes(50), says="DICOM")
    refuse(row, "without a preamble", lambda: b"\x08\0\x05\0CS\x0a\0ISO_IR 100" + bytes(50), says="DICOM")
    row = "ZIP, PDF, Office, HTML, text, AppleDouble, placeholders, pointers, zeros"
    for name, data in {
        "ZIP": b"PK\x03\x04\x14\0" + bytes(60),
        "PDF": b"%PDF-1.7\n" + bytes(20),
        "HTML": b"<!DOCTYPE html><html><body>Sign in</body></html>",
        "Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
        "zeros": bytes(5_000),
        "AppleDouble": b"\0\x05\x16\x07\0\x02\0\0Mac OS X" + bytes(60),
        "iCloud": b"bplist00" + bytes(40),
        "text": b"Dear colleague, the picture is in the other envelope.\n",
        "Word": b"PK\x03\x04" + bytes(26) + b"word/document.xml" + bytes(60),
    }.items():
        refuse(row, name, lambda d=data: d, says=name)  # type: ignore[misc]
    refuse("Empty file", "no bytes", lambda: b"", TRUNCATED)
    return rows


# ---- helpers of single cases


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def srgb_profile() -> bytes:
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def chromaticities(primaries: Sequence[tuple[float, float]]) -> bytes:
    ordered = (primaries[3], *primaries[:3])
    return struct.pack(">8I", *(round(100_000 * value) for place in ordered for value in place))


def without_adobe(jpeg: bytes) -> bytes:
    at = jpeg.index(b"\xff\xee")
    return jpeg[:at] + jpeg[at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big") :]


def interlaced_png() -> bytes:
    """Adam7, which no library here writes."""
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = b"".join(
        b"\0" + row.tobytes() for left, top, across, down in passes for row in GREY[top::down, left::across]
    )
    height, width = GREY.shape
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 1))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")


def dark_spread(bits: int) -> npt.NDArray[np.uint16]:
    """The dark picture in samples of some bits, spread over 16 as PNG asks for."""
    narrow = (DARK.astype(np.uint32) * ((1 << bits) - 1) // 255).astype(np.uint16)
    return narrow << (16 - bits) | narrow >> (2 * bits - 16)


def pages(*pictures: Pixels) -> bytes:
    file = BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for picture in pictures:
            writer.write(picture, photometric="rgb", metadata=None)
    return file.getvalue()


def zeroed(compression: str) -> bytes:
    """A page of 4 KiB of zeros in the middle of a compressed strip."""
    data = bytearray(tiff(PICTURE, compression=compression))
    start = len(data) // 2
    data[start : start + 4096] = bytes(len(data[start : start + 4096]))
    return bytes(data)


def changed_bmp(place: int, value: int) -> bytes:
    data = bytearray(bmp(PICTURE))
    struct.pack_into("<I", data, place, value)
    return bytes(data)


def exif_orientation(value: int) -> bytes:
    """EXIF in big-endian order with an orientation of 32 bits."""
    return b"Exif\0\0MM\0*" + struct.pack(">IHHHII", 8, 1, 0x0112, 4, 1, value) + bytes(4)


def many_scans() -> bytes:
    """A large progressive JPEG whose last scan is repeated."""
    data = opencv(".jpg", np.zeros((1024, 1024, 3), np.uint8), cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * 3_000 + data[-2:]


def with_hot_pixel(samples: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    spoiled = samples.copy()
    spoiled[10, 10, 1] = 65535
    return spoiled


def grey_alpha_png(samples: npt.NDArray[np.uint16], *significant: int) -> bytes:
    """Grey and alpha of 16 bits, which no library here writes."""
    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 4, 0, 0, 0))
    body = png_chunk(b"sBIT", bytes(significant)) + png_chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + body + png_chunk(b"IEND", b"")


def grey_icc_profile() -> bytes:
    """A profile for grey pictures: that of colours, under the other name."""
    profile = bytearray(icc_profile(SRGB, 1.8))
    profile[16:20] = b"GRAY"
    return bytes(profile.replace(b"rTRC", b"kTRC"))


def masked_bmp_at(start: int) -> bytes:
    data = bytearray(bmp(PICTURE, masks=(0xFF0000, 0xFF00, 0xFF)))
    struct.pack_into("<I", data, 10, start)
    return bytes(data)


def packbits_with_predictor() -> bytes:
    return tiff(PICTURE, compression="packbits", extratags=[(317, "H", 1, 2, True)])


def of_many_pixels(kind: str) -> bytes:
    if kind == "PNG":
        header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0))
        return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(b"")) + png_chunk(b"IEND", b"")
    if kind == "BMP":
        data = bytearray(bmp(PICTURE))
        struct.pack_into("<ii", data, 18, 60_000, 60_000)
        return bytes(data)
    if kind == "WEBP":
        side = struct.pack("<I", 16_000)[:3]
        return b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + side + side
    data = bytearray(tiff(PICTURE))
    with tifffile.TiffFile(BytesIO(data)) as opened:
        for code in (256, 257):
            tag = opened.pages[0].tags[code]
            struct.pack_into("<H" if tag.dtype == 3 else "<I", data, tag.valueoffset, 60_000)
    return bytes(data)


CASES = _cases()
