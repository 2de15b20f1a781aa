"""Decode the data set once, into a memory map that training draws from.

Cached images have one size, a little above the model's input, so that rotation and scale keep the borders filled.
Validation and test do not use the cache: they go through `worker.images.preprocess` from the file.
"""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer.data.scan import digests
from trainer.errors import DatasetError
from worker.atomic_files import unfinished_folder
from worker.errors import ImageFaultError
from worker.images.colour import RGBImage
from worker.images.decode import decode
from worker.images.opencv import cv2
from worker.images.preprocess import Preprocessing, resize_shorter_side


def cached_shape(preprocessing: Preprocessing) -> tuple[int, int]:
    """Height and width of a cached image in pixels: a seventh more than the model's input.

    With ``cover`` the width is that of HAM10000's 4:3, since rotation uses what is cut off without it; otherwise a
    cached image is square. 224 gives (256, 341) or (256, 256).
    """
    height = round(preprocessing.size * 8 / 7)
    return height, round(height * 4 / 3) if preprocessing.fit == "cover" else height


def resize_for_cache(image: RGBImage, preprocessing: Preprocessing) -> RGBImage:
    """Bring a decoded image to `cached_shape`.

    With ``cover`` the shorter side is resized, and the longer one cut or mirrored to fit; otherwise the image is
    fitted as for the model, a little larger.
    """
    height, width = cached_shape(preprocessing)
    if preprocessing.fit != "cover":
        return replace(preprocessing, size=height)(image)
    if image.shape[0] > image.shape[1]:
        image = np.ascontiguousarray(image.transpose(1, 0, 2))
    resized = resize_shorter_side(image, height)
    surplus = resized.shape[1] - width
    if surplus < 0:
        left = -surplus // 2
        return cv2.copyMakeBorder(  # type: ignore[return-value]
            resized, 0, 0, left, -surplus - left, cv2.BORDER_REFLECT_101
        )
    return resized[:, surplus // 2 : surplus // 2 + width]


def _kind(preprocessing: Preprocessing) -> list[str]:
    """What else tells cached images apart. Empty for those of earlier versions."""
    kind: list[str] = [] if preprocessing.fit == "cover" else [preprocessing.fit]
    return [*kind, "reduced"] if preprocessing.reduced_decoding else kind


def decode_file(path: Path, preprocessing: Preprocessing | None = None) -> RGBImage:
    """Decode one image file of a data set: as a worker does for this preprocessing, or at full size.

    Raises:
        DatasetError: it cannot be decoded; names the file.
    """
    try:
        data = path.read_bytes()
        return decode(data) if preprocessing is None else preprocessing.decode(data).pixels
    except ImageFaultError as fault:
        raise DatasetError(f"{path.name} cannot be used: {fault.sentence}. Get the file again.") from None


def load_resized_cache(paths: Sequence[Path], cache: Path, preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    """Decode images into a memory map, or open the map that an earlier call made of the same files.

    Args:
        paths: the image files, in the order wanted.
        cache: folder for the map (262 KB an image at 224 pixels); made when absent.
        preprocessing: of the run.

    Returns:
        Read-only memory map, (len(paths), *cached_shape(preprocessing), 3), uint8, RGB.

    Raises:
        DatasetError: a file cannot be decoded; names it.
        OSError: a file cannot be read.
    """
    height, width = cached_shape(preprocessing)
    # By content: a corrected copy of an image may have the old one's name and size.
    key = hashlib.sha256(json.dumps([digests(paths), height, width, *_kind(preprocessing)]).encode()).hexdigest()[:16]
    target = cache / f"cached_images-{key}.npy"
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        # Of this call alone: runs that share a cache, also from two containers, may fill it at the same time.
        with unfinished_folder(target) as scratch:
            unfinished = scratch / target.name
            shape = (len(paths), height, width, 3)
            cached_images = np.lib.format.open_memmap(unfinished, mode="w+", dtype=np.uint8, shape=shape)

            def fill(index: int) -> None:
                cached_images[index] = resize_for_cache(decode_file(paths[index], preprocessing), preprocessing)

            with ThreadPoolExecutor() as pool:
                list(pool.map(fill, range(len(paths))))
            cached_images.flush()
            unfinished.rename(target)
    opened: npt.NDArray[np.uint8] = np.load(target, mmap_mode="r")
    return opened


def load_inputs(paths: Sequence[Path], preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    """Decode and preprocess images exactly as a worker does.

    Returns:
        (len(paths), size, size, 3), uint8, RGB, in memory.
    """

    def load(path: Path) -> RGBImage:
        return preprocessing(decode_file(path, preprocessing))

    with ThreadPoolExecutor() as pool:
        return np.stack(list(pool.map(load, paths)))
