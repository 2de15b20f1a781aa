"""Files of every kind that docs/formats.md lists, and what dermq must make of them."""

import struct
from collections.abc import Callable
from dataclasses import dataclass

import imagecodecs
import numpy as np
from PIL import Image

from tests.picture_files import (
    ADOBE_RGB,
    ALPHA,
    DARK,
    DISPLAY_P3,
    FOURTEEN,
    GREY,
    GREY_RGB,
    JPEG,
    PICTURE,
    PROPHOTO,
    SRGB,
    WIDE,
    Pixels,
    bmp,
    by_opencv,
    by_pillow,
    changed_bmp,
    chromaticities,
    converted,
    dark_spread,
    exif_of_adobe_rgb,
    exif_orientation,
    grey_alpha_png,
    grey_icc_profile,
    icc_profile,
    interlaced_png,
    jpeg_with_frame,
    many_scans,
    masked_bmp_at,
    max_sample_value,
    of_many_pixels,
    opencv,
    packbits_with_predictor,
    packed,
    pages,
    pillow,
    png,
    saved,
    srgb_profile,
    tiff,
    tiled_by_hand,
    with_hot_pixel,
    with_segment,
    without_adobe,
    zeroed,
)
from worker.images.opencv import cv2

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


CASES = _cases()
