"""How much damage each reader hears: a page of 4 KiB of zeros in the middle of a file, as disks leave it.

    python benchmarks/damage.py

A file counts as silent where it is read and its pixels are not those of the whole file.
"""

import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

# The files are made by the tests.
sys.path.insert(0, str(Path(__file__).parents[1]))

from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from tests.dicom_files import dicom
from tests.picture_files import Pixels, opencv, pillow, tiff
from worker.errors import ImageFaultError
from worker.images.decode import decode
from worker.images.opencv import cv2
from worker.synthetic.lesion import draw_lesion

#: Pictures of each kind, and places of the page in each.
PICTURES, PLACES = 5, 8
PAGE = 4_096


def noisy(seed: int) -> Pixels:
    """A lesion with the noise of a sensor, so that compressed files are as large as real ones."""
    picture = draw_lesion(seed, width=800, height=600).astype(int)
    return np.clip(picture + np.random.default_rng(seed).normal(0, 4, picture.shape), 0, 255).astype(np.uint8)


KINDS: dict[str, Callable[[Pixels], bytes]] = {
    "JPEG": lambda p: opencv(".jpg", p, cv2.IMWRITE_JPEG_QUALITY, 95),
    "JPEG, progressive": lambda p: opencv(".jpg", p, cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_QUALITY, 95),
    "PNG": lambda p: opencv(".png", p),
    "TIFF, LZW": lambda p: tiff(p, compression="lzw", rowsperstrip=64),
    "TIFF, deflate": lambda p: tiff(p, compression="zlib", rowsperstrip=64),
    "TIFF, PackBits": lambda p: tiff(p, compression="packbits", rowsperstrip=64),
    "WebP": lambda p: pillow("WEBP", p, quality=95),
    "WebP, lossless": lambda p: pillow("WEBP", p, lossless=True),
    "DICOM, RLE": lambda p: dicom(p, syntax=RLELossless),
    "DICOM, lossless JPEG": lambda p: dicom(p, syntax=JPEGLosslessSV1),
    "DICOM, JPEG-LS": lambda p: dicom(p, syntax=JPEGLSLossless),
    "DICOM, JPEG 2000": lambda p: dicom(p, syntax=JPEG2000Lossless),
}


def main() -> None:
    """Print a table."""
    random.seed(0)
    print(f"{PICTURES * PLACES} files of each kind with a page of zeros")
    print(f"{'':24}{'refused':>8}{'silent':>8}   greatest share of pixels off by more than 10")
    for name, make in KINDS.items():
        refused = silent = 0
        worst = 0.0
        for seed in range(PICTURES):
            data = make(noisy(seed))
            whole = decode(data)
            for _ in range(PLACES):
                # Behind the header and before the end, where pages of a disk begin.
                place = random.randrange(len(data) // 4, len(data) * 3 // 4) // PAGE * PAGE
                try:
                    found = decode(data[:place] + bytes(PAGE) + data[place + PAGE :])
                except ImageFaultError:
                    refused += 1
                    continue
                off = float((np.abs(found.astype(int) - whole).max(axis=2) > 10).mean())
                silent += not np.array_equal(found, whole)
                worst = max(worst, off)
        print(f"{name:24}{refused:8}{silent:8}   {worst:.1%}")


if __name__ == "__main__":
    main()
