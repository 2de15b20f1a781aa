"""A file of several pictures is refused, because only its first would be scored; one with a preview is not."""

import struct
from collections.abc import Sequence

import numpy as np
import pytest

from db.status import FailureCode
from worker.errors import ImageFaultError
from worker.images.decode import decode
from worker.images.opencv import cv2
from worker.synthetic.lesion import draw_lesion

PICTURES = [draw_lesion(seed, width=64, height=48) for seed in (1, 2, 3)]


def refusal(data: bytes) -> ImageFaultError:
    with pytest.raises(ImageFaultError) as caught:
        decode(data)
    return caught.value


def tiff_pages(kinds: Sequence[int | None], *, order: str = "<", big: bool = False, wide: bool = True) -> bytes:
    """Small grey pages in one file, each with the kind it says it is."""
    count, offset, entry = ("Q", "Q", "HHQQ") if big else ("H", "I", "HHII")
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if big else 42)
    body = head + (struct.pack(order + "HHQ", 8, 0, 16) if big else struct.pack(order + "I", 8))
    pixels = bytes(range(64))
    for number, kind in enumerate(kinds):
        tags = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 273: 0, 277: 1, 278: 8, 279: 64}
        if kind is not None:
            tags[254] = kind
        size = struct.calcsize("<" + count) + len(tags) * struct.calcsize("<" + entry) + struct.calcsize("<" + offset)
        tags[273] = len(body) + size
        following = len(body) + size + len(pixels) if number + 1 < len(kinds) else 0
        body += struct.pack(order + count, len(tags))
        for tag, value in sorted(tags.items()):
            form = 4 if wide or tag != 254 else 3
            shifted = value if form == 4 or order == "<" else value << 16
            if form == 3 and big and order == ">":
                shifted = value << 48
            elif big and order == ">":
                shifted = value << 32
            body += struct.pack(order + entry, tag, form, 1, shifted)
        body += struct.pack(order + offset, following) + pixels
    return body


@pytest.mark.parametrize("pages", [2, 3])
def test_a_tiff_of_several_pages_is_refused(pages: int) -> None:
    written, data = cv2.imencodemulti(".tiff", PICTURES[:pages])
    assert written
    fault = refusal(data.tobytes())
    assert fault.code == FailureCode.UNSUPPORTED_FORMAT
    assert "a TIFF of several pages: only its first" in fault.sentence


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("wide", [False, True])
def test_a_preview_or_a_mask_behind_the_picture_is_no_page(order: str, big: bool, wide: bool) -> None:
    for kinds in ([None], [0], [0, 1], [None, 1, 4, 5]):
        assert decode(tiff_pages(kinds, order=order, big=big, wide=wide)).shape == (8, 8, 3)
    for kinds in ([None, None], [0, 0], [0, 1, 2], [0, 2], [1, 0], [1]):
        fault = refusal(tiff_pages(kinds, order=order, big=big, wide=wide))
        assert fault.code == FailureCode.UNSUPPORTED_FORMAT


def test_a_tiff_cut_before_its_second_page_is_truncated() -> None:
    data = tiff_pages([0, 0])
    fault = refusal(data[: len(data) // 2 + 4])
    assert fault.code == FailureCode.TRUNCATED
    assert "list of pages" in fault.sentence


def test_pages_in_a_circle_come_to_an_end() -> None:
    data = bytearray(tiff_pages([0, 1]))
    second = struct.unpack_from("<I", data, 8 + 2 + 12 * 10)[0]
    struct.pack_into("<I", data, second + 2 + 12 * 10, 8)
    assert decode(bytes(data)).shape == (8, 8, 3)


@pytest.mark.parametrize("suffix", [".webp", ".png"])
def test_an_animation_is_refused(suffix: str) -> None:
    animation = cv2.Animation()
    animation.frames = PICTURES
    animation.durations = np.array([100, 100, 100])
    written, data = cv2.imencodeanimation(suffix, animation)
    assert written
    fault = refusal(data.tobytes())
    assert (fault.code, "animated" in fault.sentence) == (FailureCode.UNSUPPORTED_FORMAT, True)


def test_a_list_of_pages_that_leads_beyond_any_file_is_a_fault() -> None:
    data = bytearray(tiff_pages([0], big=True))
    struct.pack_into("<Q", data, 16 + 8 + 20 * 10, 2**64 - 1)
    assert refusal(bytes(data)).code == FailureCode.TRUNCATED
