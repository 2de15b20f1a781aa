"""Writers of image files of every kind, from one synthetic picture; second readers; and colour by the textbook."""

import struct
import zlib
from collections.abc import Sequence
from io import BytesIO

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
