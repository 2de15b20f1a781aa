"""Read every image of a data set once: its hash, whether it decodes, and a thumbnail to find near-duplicates with.

The images of the test split are read too, since nothing is learned from them: a split is free of near-duplicates only
if those of its test images are known.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from trainer.errors import DatasetError
from worker.atomic_files import replace_file
from worker.errors import ImageFaultError
from worker.images.colour import RGBImage
from worker.images.decode import decode
from worker.images.opencv import cv2
from worker.inference.bundle import sha256_of

#: Side of a thumbnail in pixels, as for the perceptual hash (Zauner, 2010).
THUMBNAIL_SIDE = 32
#: Change the number with the way that thumbnails are made, so that old ones are not read.
_CACHE_NAME = "thumbnails-1.npz"

Thumbnails = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class DatasetScan:
    """What a scan found, in the order of the paths.

    Args:
        sha256: hexadecimal, of each file.
        thumbnails: (n, 32, 32), uint8, grey. Zeros where the image does not decode.
        faults: why an image does not decode. Empty where it does.
    """

    sha256: list[str]
    thumbnails: Thumbnails
    faults: list[str]


def scan_images(paths: Sequence[Path], cache: Path) -> DatasetScan:
    """Hash every file, and decode those that no earlier scan has seen.

    Args:
        paths: image files.
        cache: folder that keeps thumbnails by the SHA-256 of the file.

    Returns:
        What was found, images that do not decode among it.

    Raises:
        OSError: a file cannot be read.
    """
    known = _read_cache(cache / _CACHE_NAME)

    def read(path: Path) -> tuple[str, Thumbnails, str]:
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if digest in known:
            return digest, known[digest], ""
        try:
            return digest, _thumbnail(decode(content)), ""
        except ImageFaultError as fault:
            return digest, np.zeros((THUMBNAIL_SIDE, THUMBNAIL_SIDE), np.uint8), fault.sentence

    with ThreadPoolExecutor() as pool:
        seen = list(pool.map(read, paths))
    fresh = {digest: thumbnail for digest, thumbnail, fault in seen if not fault and digest not in known}
    if fresh:
        _write_cache(cache, {**known, **fresh})
    return DatasetScan(
        sha256=[digest for digest, _, _ in seen],
        thumbnails=np.stack([thumbnail for _, thumbnail, _ in seen]),
        faults=[fault for _, _, fault in seen],
    )


def digests(paths: Sequence[Path]) -> list[str]:
    """SHA-256 of each file, in hexadecimal.

    Raises:
        OSError: a file cannot be read.
    """
    with ThreadPoolExecutor() as pool:
        return list(pool.map(sha256_of, paths))


def refuse_faults(images: pd.DataFrame) -> None:
    """Refuse images that do not decode.

    Args:
        images: rows with ``image_id`` and ``fault``.

    Raises:
        DatasetError: counts and names every one of them.
    """
    broken = images[images["fault"] != ""]
    if len(broken):
        listed = "\n".join(f"  {row.image_id}: {row.fault}" for row in broken.itertuples())
        raise DatasetError(
            f"{len(broken)} of {len(images)} images cannot be used:\n{listed}\n"
            "Copy the files again, or leave them out with --skip-corrupt."
        )


def _thumbnail(image: RGBImage) -> Thumbnails:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    side = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    return np.asarray(cv2.resize(grey, side, interpolation=cv2.INTER_AREA), np.uint8)


def _read_cache(path: Path) -> dict[str, Thumbnails]:
    if not path.exists():
        return {}
    with np.load(path) as kept:
        return dict(zip(kept["sha256"].tolist(), kept["thumbnails"], strict=True))


def _write_cache(cache: Path, known: dict[str, Thumbnails]) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    with replace_file(cache / _CACHE_NAME) as unfinished, unfinished.open("wb") as file:
        np.savez(file, sha256=np.array(list(known)), thumbnails=np.stack(list(known.values())))
