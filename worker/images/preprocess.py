"""The only preprocessing. Training, evaluation and scoring call it between decoding and the model."""

from dataclasses import dataclass

from worker.images.decode import RGBImage
from worker.images.fit import Fit
from worker.images.opencv import cv2


def resize_shorter_side(image: RGBImage, side: int) -> RGBImage:
    """Resize so that the shorter side has ``side`` pixels and the proportions stay.

    Args:
        image: (height, width, 3), uint8, RGB.
        side: wanted length of the shorter side in pixels.

    Returns:
        Array whose shorter side is exactly ``side``.
    """
    height, width = image.shape[:2]
    scale = side / min(height, width)
    size = (max(side, round(width * scale)), max(side, round(height * scale)))
    return _resize(image, size)


def _resize(image: RGBImage, size: tuple[int, int]) -> RGBImage:
    if (image.shape[1], image.shape[0]) == size:
        return image
    # Area averaging is the only interpolation of OpenCV that does not alias when it shrinks an image.
    shrinks = size[0] < image.shape[1] or size[1] < image.shape[0]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)  # type: ignore[return-value]


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Turns a decoded image into one input of the model.

    Args:
        size: side of the model's square input, in pixels.
        fit: ``cover`` resizes the shorter side to ``size`` and crops the middle; ``stretch`` resizes the whole frame
            into the square.

    The model's input is 8-bit RGB. Its graph scales the pixel values.
    """

    size: int
    fit: Fit = "cover"

    def __call__(self, image: RGBImage) -> RGBImage:
        """Turn an image of any size into an array of shape (size, size, 3), uint8, RGB."""
        if self.fit == "stretch":
            return _resize(image, (self.size, self.size))
        resized = resize_shorter_side(image, self.size)
        top = (resized.shape[0] - self.size) // 2
        left = (resized.shape[1] - self.size) // 2
        # A copy: a view would keep the whole strip of a very wide image in memory.
        return resized[top : top + self.size, left : left + self.size].copy()
