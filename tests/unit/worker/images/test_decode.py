"""Decoding: whatever the bytes are, the answer is a right picture or an `ImageFaultError`, never anything else."""

import json
import struct
import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from db.status import FailureCode
from worker.errors import ImageFaultError
from worker.images.colour import RGBImage
from worker.images.decode import decode
from worker.images.identify import sniff_format
from worker.images.opencv import MAX_IMAGE_PIXELS, cv2
from worker.synthetic.archive import encode
from worker.synthetic.lesion import draw_lesion

PICTURE = draw_lesion(1, width=300, height=240)
SMALL = draw_lesion(2, width=64, height=48)
FORMATS = {".jpg": "jpeg", ".png": "png", ".tiff": "tiff", ".bmp": "bmp", ".webp": "webp"}
LOSSLESS = (".png", ".tiff", ".bmp")
#: First bytes by which each format is known.
SIGNATURES = (
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"MM\0+",
    b"BM",
    b"RIFF\x40\0\0\0WEBP",
)


def encoded(suffix: str, samples: npt.NDArray[np.generic]) -> bytes:
    """Encode samples as they are, in OpenCV's order of channels."""
    written, data = cv2.imencode(suffix, samples)
    assert written
    return data.tobytes()


def fault_of(data: bytes) -> ImageFaultError:
    with pytest.raises(ImageFaultError) as caught:
        decode(data)
    return caught.value


def tiff(tags: dict[int, int], pixels: bytes = b"") -> bytes:
    """A TIFF whose directory comes before its pixels, as most cameras write it and OpenCV does not."""
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + directory + bytes(4) + pixels


def grey_tiff(grey: RGBImage, *, orientation: int = 1) -> bytes:
    """One uncompressed strip of grey samples behind the directory."""
    height, width = grey.shape
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 274: orientation, 277: 1, 278: height, 279: grey.size}
    return tiff({**tags, 273: 8 + 2 + 12 * (len(tags) + 1) + 4}, grey.tobytes())


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """Put an EXIF segment with one tag behind the JPEG's first marker."""
    directory = struct.pack(">HHHIHH", 1, 0x0112, 3, 1, orientation, 0) + bytes(4)
    segment = b"Exif\0\0MM\0*" + struct.pack(">I", 8) + directory
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]


@pytest.mark.parametrize("suffix", FORMATS)
def test_each_format_gives_the_picture_back(suffix: str) -> None:
    data = encode(PICTURE, suffix)
    assert sniff_format(data) == FORMATS[suffix]
    image = decode(data)
    assert image.shape == PICTURE.shape
    assert image.dtype == np.uint8
    # Red and blue exchanged would differ by more than 20 on skin.
    assert np.abs(image.astype(int) - PICTURE).mean() <= (0 if suffix in LOSSLESS else 4)


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".bmp", ".jpg"])
def test_grey_becomes_three_equal_channels(suffix: str) -> None:
    grey = PICTURE[..., 1]
    image = decode(encoded(suffix, grey))
    assert image.shape == PICTURE.shape
    assert np.array_equal(image[..., 0], image[..., 1])
    assert np.array_equal(image[..., 0], image[..., 2])
    assert np.abs(image[..., 0].astype(int) - grey).mean() <= (0 if suffix in LOSSLESS else 4)


def test_two_colour_png_is_read() -> None:
    black_and_white = np.where(PICTURE[..., 1] > 128, 255, 0).astype(np.uint8)
    written, data = cv2.imencode(".png", black_and_white, [cv2.IMWRITE_PNG_BILEVEL, 1])
    assert written
    assert np.array_equal(decode(data.tobytes())[..., 0], black_and_white)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_samples_are_scaled_to_8(suffix: str, channels: int) -> None:
    expected = PICTURE if channels == 3 else np.repeat(PICTURE[..., :1], 3, axis=2)
    samples = expected[..., :channels][..., ::-1].astype(np.uint16) * 257
    assert np.array_equal(decode(encoded(suffix, samples)), expected)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_transparency_is_dropped_and_the_colours_stay(suffix: str) -> None:
    see_through = np.dstack([PICTURE[..., ::-1], np.full(PICTURE.shape[:2], 7, np.uint8)])
    assert np.array_equal(decode(encoded(suffix, see_through)), PICTURE)


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, lambda image: image),
        (2, np.fliplr),
        (3, lambda image: np.rot90(image, 2)),
        (4, np.flipud),
        (5, lambda image: image.transpose(1, 0, 2)),
        (6, lambda image: np.rot90(image, -1)),
        (7, lambda image: np.rot90(image, 2).transpose(1, 0, 2)),
        (8, lambda image: np.rot90(image, 1)),
    ],
)
def test_exif_orientation_is_applied(orientation: int, turn: object) -> None:
    jpeg = encode(PICTURE, ".jpg")
    assert np.array_equal(decode(with_orientation(jpeg, orientation)), turn(decode(jpeg)))  # type: ignore[operator]


def test_tiff_orientation_is_applied() -> None:
    grey = SMALL[..., 1]
    assert np.array_equal(decode(grey_tiff(grey))[..., 0], grey)
    assert np.array_equal(decode(grey_tiff(grey, orientation=3))[..., 0], np.rot90(grey, 2))


def test_empty_file() -> None:
    fault = fault_of(b"")
    assert fault.code == FailureCode.TRUNCATED
    assert "0 bytes" in fault.sentence


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5, 0.9, 0.99])
def test_a_file_cut_short_is_truncated(suffix: str, share: float) -> None:
    data = encode(PICTURE, suffix)
    assert fault_of(data[: max(12, int(share * len(data)))]).code == FailureCode.TRUNCATED


@pytest.mark.parametrize("suffix", FORMATS)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_no_cut_whatever_passes_for_a_whole_picture(suffix: str, data: st.DataObject) -> None:
    whole = encode(SMALL, suffix)
    cut = data.draw(st.integers(0, len(whole) - 1))
    assert fault_of(whole[:cut]).code in (FailureCode.TRUNCATED, FailureCode.UNSUPPORTED_FORMAT)


@settings(deadline=None)
@given(missing=st.integers(1, SMALL[..., 1].size))
def test_a_tiff_cut_behind_its_directory_is_truncated(missing: int) -> None:
    assert fault_of(grey_tiff(SMALL[..., 1])[:-missing]).code == FailureCode.TRUNCATED


@pytest.mark.parametrize("cut", [0.2, 0.5, 0.9])
def test_a_progressive_jpeg_cut_short_is_truncated(cut: float) -> None:
    written, data = cv2.imencode(".jpg", PICTURE, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    assert written
    assert fault_of(data.tobytes()[: int(cut * data.size)]).code == FailureCode.TRUNCATED


@pytest.mark.parametrize(
    "content",
    [
        b"Dear colleague, the picture is in the other envelope.\n",
        b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
        b"GIF89a" + bytes(100),
        b"\0",
    ],
)
def test_what_is_no_picture_is_unsupported_whatever_its_name(content: bytes) -> None:
    fault = fault_of(content)
    assert fault.code == FailureCode.UNSUPPORTED_FORMAT
    assert "not a JPEG, PNG, TIFF, BMP or WebP" in fault.sentence


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_tiff_of_real_numbers_is_a_fault(kind: type[np.floating]) -> None:
    assert fault_of(encoded(".tiff", (PICTURE / 255).astype(kind))).code in (
        FailureCode.TRUNCATED,
        FailureCode.UNSUPPORTED_FORMAT,
    )


_DECODE_BOMBS = """
import json, resource, struct, sys
from worker.errors import ImageFaultError
from worker.images.decode import decode
from worker.synthetic.archive import decompression_bomb, encode
import numpy as np

dot = np.zeros((16, 16, 3), np.uint8)
jpeg = bytearray(encode(dot, ".jpg"))
frame = jpeg.find(b"\\xff\\xc0")
jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 65_000, 65_000)
bmp = bytearray(encode(dot, ".bmp"))
bmp[18:26] = struct.pack("<ii", 60_000, 60_000)
tags = [(256, 100_000), (257, 100_000), (258, 8), (259, 1), (262, 1), (273, 200), (277, 1), (278, 1), (279, 300)]
tiff = b"II*\\0" + struct.pack("<IH", 8, len(tags)) + b"".join(struct.pack("<HHII", t, 4, 1, v) for t, v in tags)
side = struct.pack("<I", 16_000)[:3]
webp = encode(dot, ".webp")[:12] + b"VP8X" + struct.pack("<I", 10) + b"\\x10\\0\\0\\0" + side + side + bytes(100)
bombs = {"png": decompression_bomb(), "jpeg": jpeg, "bmp": bmp, "tiff": tiff + bytes(1_000), "webp": webp}
decode(encode(dot, ".png"))
before, codes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, {}
for name, data in bombs.items():
    try:
        decode(bytes(data))
    except ImageFaultError as fault:
        codes[name] = fault.code
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps({"codes": codes, "grown": grown * (1 if sys.platform == "darwin" else 1024)}))
"""


def test_decompression_bombs_are_refused_before_their_pixels_are_allocated() -> None:
    # In a process of its own: the peak of this one was set by whatever ran before.
    ran = subprocess.run([sys.executable, "-c", _DECODE_BOMBS], capture_output=True, check=True, text=True)
    result = json.loads(ran.stdout)
    assert result["codes"] == dict.fromkeys(("png", "jpeg", "bmp", "tiff", "webp"), FailureCode.TOO_LARGE)
    assert result["grown"] < MAX_IMAGE_PIXELS / 4, f"refusing took {result['grown']:,} bytes"


@settings(deadline=None)
@given(signature=st.sampled_from(SIGNATURES), rest=st.binary(max_size=400))
@example(signature=b"BM", rest=b"")
def test_random_bytes_behind_a_signature_are_a_fault_and_nothing_else(signature: bytes, rest: bytes) -> None:
    _decodes_or_faults(signature + rest)


@pytest.mark.parametrize("suffix", FORMATS)
@settings(deadline=None, max_examples=40)  # damage may declare 64 million pixels, which take their time
@given(data=st.data())
def test_a_damaged_file_is_a_picture_or_a_fault_and_nothing_else(suffix: str, data: st.DataObject) -> None:
    damaged = bytearray(encode(SMALL, suffix))
    # Headers and directories are where a decoder believes what it reads.
    near_an_end = st.integers(-200, 200).map(lambda offset: offset % len(damaged))
    for place in data.draw(st.lists(near_an_end, min_size=1, max_size=8)):
        damaged[place] = data.draw(st.integers(0, 255))
    _decodes_or_faults(bytes(damaged))


def _decodes_or_faults(data: bytes) -> None:
    try:
        image = decode(data)
    except ImageFaultError:
        return
    assert image.dtype == np.uint8
    assert image.shape[2:] == (3,)
