"""Read image files for an evaluation: each is decoded once, and everything that a report needs is taken from it."""

import base64
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer.data.resized_cache import decode_file
from trainer.data.skin_tone import border_angle
from trainer.errors import DatasetError
from worker.images.colour import RGBImage
from worker.images.opencv import cv2
from worker.images.preprocess import Preprocessing, resize_shorter_side

#: Shorter side of a picture in the local report, in pixels, and its JPEG quality.
_PICTURE_SIDE, _PICTURE_QUALITY = 180, 85
#: Files named in an error; the rest are counted.
_NAMED = 10


@dataclass(frozen=True, kw_only=True)
class LoadedImages:
    """What was taken from the files.

    Args:
        inputs: the model's, (n, size, size, 3), uint8, RGB.
        ita: individual typology angle of the border in degrees, (n,); NaN where it cannot be measured.
    """

    inputs: npt.NDArray[np.uint8]
    ita: npt.NDArray[np.float64]


def load_images(paths: Sequence[Path], preprocessing: Preprocessing) -> LoadedImages:
    """Decode and preprocess images exactly as a worker does, and measure the skin tone around the lesions.

    Args:
        paths: the image files.
        preprocessing: of the run.

    Raises:
        DatasetError: files cannot be decoded; counts them and names the first.
    """

    def load(path: Path) -> tuple[RGBImage, float] | DatasetError:
        try:
            image = decode_file(path, preprocessing)
        except DatasetError as error:
            return error
        return preprocessing(image), border_angle(image)

    with ThreadPoolExecutor() as pool:
        found = list(pool.map(load, paths))
    if faults := [str(one) for one in found if isinstance(one, DatasetError)]:
        rest = f" … and {len(faults) - _NAMED} more." if len(faults) > _NAMED else ""
        raise DatasetError(f"{len(faults)} of {len(found)} images cannot be used. {' '.join(faults[:_NAMED])}{rest}")
    loaded = [one for one in found if not isinstance(one, DatasetError)]
    return LoadedImages(inputs=np.stack([part for part, _ in loaded]), ita=np.array([angle for _, angle in loaded]))


def picture(path: Path) -> str:
    """A small copy of an image as a ``data:`` address, for a report that stays on this machine."""
    small = resize_shorter_side(decode_file(path), _PICTURE_SIDE)
    encoded = cv2.imencode(
        ".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _PICTURE_QUALITY]
    )[1]
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()
