"""Thumbnails of a job's images, read again from its archive."""

import base64
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from worker.errors import ImageFaultError
from worker.images.decode import decode_image
from worker.images.opencv import cv2
from worker.images.preprocess import greatest_divisor
from worker.images.read_any import Reader

#: Longest side in pixels, enough to look at a lesion across a window, and quality of the JPEG: some 25 KB each.
SIDE, _QUALITY = 600, 80


def make_thumbnail(reader: Reader, path: str, sha256: str | None, max_bytes: int) -> bytes | None:
    """A small JPEG of an image, without anything of the file but its pixels. None where it cannot be read now.

    Args:
        reader: of the job's archive.
        path: of the image, from `path_to_text`.
        sha256: of the bytes that were scored: another picture must not stand beside the score. None without one.
        max_bytes: size of the largest file that is read.
    """
    try:
        content = reader(path, size_bytes=None, mtime_ns=None, max_bytes=max_bytes)
        if sha256 is not None and content.sha256 != sha256:
            return None
        image = decode_image(content.data, _divisor, content.frame).pixels
    except (ImageFaultError, MemoryError):
        return None
    height, width = image.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    written, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return data.tobytes() if written else None


def _divisor(height: int, width: int) -> int:
    return greatest_divisor(max(height, width), SIDE)


def embedded(thumbnails: Mapping[int, bytes]) -> Callable[[int], str | None]:
    """Addresses that hold the thumbnails themselves, by the image's id."""

    def address(image_id: int) -> str | None:
        data = thumbnails.get(image_id)
        return None if data is None else f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"

    return address


def in_folder(thumbnails: Mapping[int, bytes], folder: Path) -> Callable[[int], str | None]:
    """Write the thumbnails into a folder, and give their addresses relative to the folder that holds it."""
    # They are pictures of patients.
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    for image_id, data in thumbnails.items():
        (folder / f"{image_id}.jpg").write_bytes(data)
    return lambda image_id: f"{folder.name}/{image_id}.jpg" if image_id in thumbnails else None
