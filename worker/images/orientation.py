"""Turning a picture upright by its orientation tag (TIFF 6.0 and EXIF, tag 274)."""

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from worker.images.colour import RGBImage

TAG = 0x0112
_TURNS: dict[Any, Callable[[RGBImage], RGBImage]] = {
    2: np.fliplr,
    3: lambda picture: np.rot90(picture, 2),
    4: np.flipud,
    5: lambda picture: picture.transpose(1, 0, 2),
    6: lambda picture: np.rot90(picture, -1),
    7: lambda picture: np.rot90(picture, 2).transpose(1, 0, 2),
    8: lambda picture: np.rot90(picture, 1),
}


def upright(image: RGBImage, orientation: Any) -> RGBImage:
    """Turn or mirror a picture. Anything but 2 to 8 leaves it as it is."""
    turn = _TURNS.get(orientation)
    return image if turn is None else np.ascontiguousarray(turn(image))


def orientation_of_exif(exif: Image.Exif) -> Any:
    """The orientation in EXIF, 1 without one. Some write it with 32 bits, which OpenCV does not read."""
    try:
        return exif.get(TAG, 1)
    except MemoryError:
        raise
    except Exception:
        # Of broken EXIF Pillow raises a dozen classes. Its picture is whole.
        return 1
