"""A JPEG that gives a picture though it is damaged is a fault; a whole one is none, however oddly it is written."""

import os
import random
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from db.status import FailureCode
from worker.errors import ImageFaultError
from worker.images.decode import decode
from worker.images.jpeg import decode_plain_jpeg, jpeg_damage
from worker.images.opencv import cv2
from worker.images.preprocess import Preprocessing
from worker.synthetic.lesion import draw_lesion

PICTURE = draw_lesion(1, width=320, height=240)
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "a disk's sector is missing": lambda jpeg: jpeg[: len(jpeg) // 2] + jpeg[len(jpeg) // 2 + 512 :],
    "the last third is missing": lambda jpeg: jpeg[: len(jpeg) * 2 // 3] + jpeg[-2:],
    "noise over a disk's sector": lambda jpeg: (
        jpeg[: len(jpeg) // 2] + random.Random(0).randbytes(512) + jpeg[len(jpeg) // 2 + 512 :]
    ),
    "zeros over the second half": lambda jpeg: jpeg[: len(jpeg) // 2] + bytes(len(jpeg) // 2 - 2) + jpeg[-2:],
}
WRITTEN = {
    "baseline": (),
    "progressive": (cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "restart markers": (cv2.IMWRITE_JPEG_RST_INTERVAL, 4),
    "full colour": (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111),
}


def jpeg(*options: int, picture: np.ndarray = PICTURE) -> bytes:
    """The picture as OpenCV writes it."""
    written, data = cv2.imencode(".jpg", picture, list(options))
    assert written
    return data.tobytes()


def plain_decode(data: bytes) -> np.ndarray | None:
    """What OpenCV alone makes of a file."""
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)


def with_segment(data: bytes, marker: int, content: bytes) -> bytes:
    return data[:2] + struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content + data[2:]


def with_version(data: bytes, version: int) -> bytes:
    place = data.index(b"JFIF\0") + 5
    return data[:place] + bytes([version]) + data[place + 1 :]


def with_scan_parameters(data: bytes, parameters: bytes) -> bytes:
    scan = data.index(b"\xff\xda")
    end = scan + 2 + int.from_bytes(data[scan + 2 : scan + 4], "big")
    return data[: end - 3] + parameters + data[end:]


def one_tone(*factors: int) -> bytes:
    """A grey picture with these sampling factors of its three components, which OpenCV cannot write."""
    data = bytearray(jpeg(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111))
    frame = data.index(b"\xff\xc0")
    height, width = struct.unpack(">HH", data[frame + 5 : frame + 9])
    for component, factor in enumerate(factors):
        data[frame + 11 + 3 * component] = factor
    across, down = max(factor >> 4 for factor in factors), max(factor & 15 for factor in factors)
    blocks = [(factor >> 4) * (factor & 15) for factor in factors]
    # "As the one before" and "nothing more", in the standard code of brightness and of colour.
    unit = "001010" * blocks[0] + "0000" * (blocks[1] + blocks[2])
    bits = unit * (-(-width // (8 * across)) * -(-height // (8 * down)))
    bits += "1" * (-len(bits) % 8)
    coded = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    scan = data.index(b"\xff\xda")
    return bytes(data[: scan + 14]) + coded + b"\xff\xd9"


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", WRITTEN)
def test_damage_in_the_middle_is_a_fault_though_opencv_gives_a_picture(kind: str, damage: str) -> None:
    damaged = DAMAGES[damage](jpeg(*WRITTEN[kind]))
    if kind == "baseline":
        assert plain_decode(damaged) is not None
    with pytest.raises(ImageFaultError) as caught:
        decode(damaged)
    assert caught.value.code == FailureCode.TRUNCATED
    assert "JPEG" in caught.value.sentence


@pytest.mark.parametrize("kind", WRITTEN)
def test_a_whole_one_gives_the_pixels_that_opencv_alone_gives(kind: str) -> None:
    data = jpeg(*WRITTEN[kind])
    assert np.array_equal(decode(data), plain_decode(data))


def test_grey_and_four_colours_are_checked_like_the_others() -> None:
    grey = jpeg(picture=PICTURE[..., 1])
    four = simplejpeg.encode_jpeg(np.dstack([PICTURE, PICTURE[..., :1]]).copy(), colorspace="CMYK")
    for data in (grey, four):
        assert decode(data).shape == PICTURE.shape
        with pytest.raises(ImageFaultError):
            decode(DAMAGES["a disk's sector is missing"](data))


@pytest.mark.parametrize(
    "odd",
    [
        lambda data: with_version(data, 3),
        lambda data: with_segment(data, 0xE2, b"ICC_PROFILE\0\x02\x01abcd"),
        lambda data: with_scan_parameters(data, b"\0\0\0"),
        lambda data: with_scan_parameters(with_version(data[:2] + b"\xff\xff" + data[2:], 3), b"\0\0\0"),
        lambda data: data + bytes(500),
        lambda data: data + data,
    ],
    ids=["unknown version", "broken colour profile", "scan parameters", "several", "behind its end", "second picture"],
)
def test_what_is_odd_beside_the_pixels_is_no_damage_and_hides_none(odd: Callable[[bytes], bytes]) -> None:
    data = jpeg()
    assert np.array_equal(decode(odd(data)), decode(data))
    for damage in DAMAGES.values():
        assert jpeg_damage(odd(damage(data))) is not None


@pytest.mark.parametrize("factors", [(0x22, 0x11, 0x11), (0x31, 0x11, 0x11), (0x11, 0x21, 0x21), (0x22, 0x21, 0x11)])
def test_rare_proportions_of_colour_samples_are_no_damage(factors: tuple[int, ...]) -> None:
    assert decode(one_tone(*factors)).shape == PICTURE.shape
    # simplejpeg cannot tell the size of some: a KeyError, which ended `dermq bench` in a traceback.
    reduced = Preprocessing(size=16, fit="contain", reduced_decoding=True)
    assert reduced.load(one_tone(*factors)).shape == (16, 16, 3)
    assert reduced.decode(one_tone(*factors)).short_side == min(PICTURE.shape[:2])


def test_a_check_without_enough_memory_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_memory(*_: object, **__: object) -> None:
        raise ValueError("Insufficient memory (case 4)")

    data = jpeg()
    monkeypatch.setattr(simplejpeg, "decode_jpeg", without_memory)
    with pytest.raises(MemoryError):
        decode(data)


@pytest.mark.ham10000
def test_real_images_are_whole_and_give_opencv_s_pixels() -> None:
    folder = os.environ.get("DERMQ_HAM10000")
    if folder is None:
        pytest.skip("DERMQ_HAM10000 is not set to the folder of HAM10000")
    files = sorted(Path(folder).rglob("*.jpg"))
    for path in random.Random(0).sample(files, min(300, len(files))):
        data = path.read_bytes()
        assert np.array_equal(decode(data), plain_decode(data)), path.name


@pytest.mark.parametrize("options", WRITTEN.values(), ids=WRITTEN)
@pytest.mark.parametrize("size", [(320, 240), (321, 239), (33, 47), (600, 450)])
def test_a_plain_file_decodes_to_opencvs_pixels(options: tuple[int, ...], size: tuple[int, int]) -> None:
    picture = draw_lesion(2, width=size[0], height=size[1])
    for quality in (40, 75, 95):
        data = jpeg(*options, cv2.IMWRITE_JPEG_QUALITY, quality, picture=picture)
        plain = decode_plain_jpeg(data, 10**6)
        assert plain is not None
        np.testing.assert_array_equal(plain, plain_decode(data))


def test_what_is_not_plain_is_left_to_opencv() -> None:
    grey = cv2.imencode(".jpg", PICTURE[..., 0])[1].tobytes()
    turned = with_segment(jpeg(), 0xE1, b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0")
    assert decode(turned).shape == (320, 240, 3), "turned upright"
    # Two bytes that look like the beginning of a scan, in a segment before that with the orientation.
    for marker in (0xED, 0xE2, 0xFE):
        hidden = with_segment(turned, marker, b"a thumbnail \xff\xda and more")
        assert decode(hidden).shape == (320, 240, 3), "turned upright"
    for data in (grey, turned, b"", b"\xff\xd8\xff", jpeg()[:-200], *(damage(jpeg()) for damage in DAMAGES.values())):
        assert decode_plain_jpeg(data, 10**6) is None
    assert decode_plain_jpeg(jpeg(), 320 * 240 - 1) is None, "too large"


@pytest.mark.parametrize("variable", ["DERMQ_HAM10000", "DERMQ_MORE_DERMOSCOPY"])
def test_real_files_decode_to_opencvs_pixels(variable: str) -> None:
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip(f"{variable} does not name the real data set")
    files = sorted(Path(folder).rglob("*.jpg"))[::40]
    assert len(files) > 100
    plain = 0
    for file in files:
        data = file.read_bytes()
        found = decode_plain_jpeg(data, 10**8)
        plain += found is not None
        np.testing.assert_array_equal(decode(data) if found is None else found, plain_decode(data))
    assert plain > len(files) / 2, "the fast way is the usual one"
