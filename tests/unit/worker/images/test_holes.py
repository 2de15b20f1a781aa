"""Holes: a sector of zeros is found in every format without checksums, and a picture of one tone is none."""

import numpy as np
import pytest
from pydicom.uid import JPEG2000Lossless, RLELossless

from db.status import FailureCode
from tests.dicom_files import dicom
from tests.picture_files import opencv, pillow
from worker.errors import ImageFaultError
from worker.images.decode import decode
from worker.images.holes import has_hole
from worker.images.opencv import cv2
from worker.synthetic.lesion import draw_lesion

NOISE = np.random.default_rng(0).integers(0, 255, (300, 400, 3)).astype(np.uint8)
WRITERS = {
    "JPEG": lambda picture: opencv(".jpg", picture, cv2.IMWRITE_JPEG_QUALITY, 95),
    "progressive JPEG": lambda picture: opencv(".jpg", picture, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "optimised JPEG": lambda picture: pillow("JPEG", picture, optimize=True),
    "WebP": lambda picture: pillow("WEBP", picture, quality=95),
    "lossless WebP": lambda picture: pillow("WEBP", picture, lossless=True),
    "RLE": lambda picture: dicom(picture, syntax=RLELossless),
    "JPEG 2000": lambda picture: dicom(picture, syntax=JPEG2000Lossless),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("sectors", [1, 8])
def test_a_hole_is_damage(kind: str, sectors: int) -> None:
    data = WRITERS[kind](NOISE)
    place = len(data) // 2 // 512 * 512
    with pytest.raises(ImageFaultError) as caught:
        decode(data[:place] + bytes(512 * sectors) + data[place + 512 * sectors :])
    assert caught.value.code == FailureCode.TRUNCATED


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("tone", [0, 128, 255])
def test_a_large_area_of_one_tone_is_none(kind: str, tone: int) -> None:
    """The black rim of a dermatoscope takes zeros alone in an optimised JPEG."""
    picture = np.full((1500, 2000, 3), tone, np.uint8)
    picture[600:900, 800:1200] = draw_lesion(1, width=400, height=300)
    assert decode(WRITERS[kind](picture)).shape == picture.shape


@pytest.mark.parametrize(
    ("before", "zeros", "after", "hole"),
    [
        (1024, 512, 512, True),
        (1022, 514, 512, True),
        (1024, 4098, 100, True),
        (1000, 600, 512, False),
        (1024, 600, 512, False),
        (1024, 511, 512, False),
        (1024, 2048, 0, False),
    ],
)
def test_a_hole_begins_and_ends_with_a_sector(before: int, zeros: int, after: int, hole: bool) -> None:
    assert has_hole(b"x" * before + bytes(zeros) + b"x" * after) == hole
