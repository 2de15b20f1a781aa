"""The only preprocessing. Training, evaluation and scoring call it between decoding and the model."""

from dataclasses import dataclass

from worker.images.colour import RGBImage
from worker.images.decode import decode_image
from worker.images.fit import Fit
from worker.images.jpeg import DecodedImage
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


def _contain(image: RGBImage, side: int) -> RGBImage:
    height, width = image.shape[:2]
    scale = side / max(height, width)
    resized = _resize(image, (max(1, round(width * scale)), max(1, round(height * scale))))
    # Mirrored, and not black: a dark border is something that dermatoscopes draw.
    top, left = (side - resized.shape[0]) // 2, (side - resized.shape[1]) // 2
    bottom, right = side - resized.shape[0] - top, side - resized.shape[1] - left
    return cv2.copyMakeBorder(  # type: ignore[return-value]
        resized, top, bottom, left, right, cv2.BORDER_REFLECT_101
    )


def greatest_divisor(side: int, wanted: int) -> int:
    """By what a JPEG's sides may be divided while it is decoded, 1 to 8, so that one keeps the wanted length."""
    return next((divisor for divisor in (8, 4, 2) if side // divisor >= wanted), 1)


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Turns an image file, or a decoded image, into one input of the model.

    Args:
        size: side of the model's square input, in pixels.
        fit: ``cover`` resizes the shorter side to ``size`` and crops the middle; ``contain`` resizes the longer side to
            ``size`` and fills the rest with the mirrored image; ``stretch`` resizes the whole frame into the square.
        reduced_decoding: decode a JPEG at a half, a quarter or an eighth of its size, where that is still enough for
            ``size``. It saves most of the decoding, and gives slightly other pixels.

    The model's input is 8-bit RGB. Its graph scales the pixel values.
    """

    size: int
    fit: Fit = "cover"
    reduced_decoding: bool = False

    def decode(self, data: bytes, frame: int | None = None) -> DecodedImage:
        """Decode a file, or a frame of a DICOM file, as far as the model needs it.

        Raises:
            ImageFaultError, MemoryError: as `worker.images.decode.decode`.
        """
        return decode_image(data, self._divisor if self.reduced_decoding else None, frame)

    def load(self, data: bytes) -> RGBImage:
        """Decode a file and turn it into the model's input, (size, size, 3), uint8, RGB; see `decode`."""
        return self(self.decode(data).pixels)

    def _divisor(self, height: int, width: int) -> int:
        """The greatest divisor that leaves the side that decides the scale at least as long as the model's input."""
        side = max(height, width) if self.fit == "contain" else min(height, width)
        return greatest_divisor(side, self.size)

    def __call__(self, image: RGBImage) -> RGBImage:
        """Turn an image of any size into an array of shape (size, size, 3), uint8, RGB."""
        if self.fit == "stretch":
            return _resize(image, (self.size, self.size))
        if self.fit == "contain":
            return _contain(image, self.size)
        resized = resize_shorter_side(image, self.size)
        top = (resized.shape[0] - self.size) // 2
        left = (resized.shape[1] - self.size) // 2
        # A copy: a view would keep the whole strip of a very wide image in memory.
        return resized[top : top + self.size, left : left + self.size].copy()
