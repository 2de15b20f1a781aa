"""Random changes to a training image that leave its diagnosis alone.

Dermoscopic images have no up and no left, are taken at varying magnification and under varying light, and their
diagnosis rarely depends on one spot. Hence rotation, flips, scale, shift, colour and cut-out (DeVries & Taylor,
"Improved regularization of convolutional neural networks with cutout", 2017).
"""

from dataclasses import dataclass

import numpy as np

from trainer.augmentation.artefacts import draw_artefacts
from trainer.augmentation.camera import change_camera
from worker.images.colour import RGBImage
from worker.images.opencv import cv2


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Ranges of the random changes.

    Args:
        scale: least and greatest magnification, relative to what workers use.
        stretch: greatest factor by which one axis is longer than in what workers use, and the other shorter.
        shift: greatest displacement, as a share of the side.
        brightness: greatest change of the level, as a share of the full range.
        contrast: greatest relative change of the contrast.
        saturation: greatest relative change of the distance from grey.
        white_balance: greatest relative change of one colour channel.
        cutout: probability that a rectangle is blanked.
        cutout_side: greatest side of that rectangle, as a share of the image's.
        artefacts: probability that hair, a ruler, ink, a dark vignette, blur or JPEG is drawn on it.
        cameras: whether resolution, compression, sharpness and colour are changed, see `trainer.augmentation.camera`.
    """

    scale: tuple[float, float] = (0.8, 1.3)
    stretch: float = 1.1
    shift: float = 0.06
    brightness: float = 0.12
    contrast: float = 0.2
    saturation: float = 0.25
    white_balance: float = 0.06
    cutout: float = 0.5
    cutout_side: float = 0.35
    artefacts: float = 0.0
    cameras: bool = False

    def __call__(self, source: RGBImage, size: int, rng: np.random.Generator) -> RGBImage:
        """Draw one training input.

        Args:
            source: decoded image of any size, (height, width, 3), uint8, RGB.
            size: side of the model's input in pixels.
            rng: random numbers.

        Returns:
            (size, size, 3), uint8, RGB.
        """
        image = self._warp(source, size, rng)
        # Drawn only when needed, so that without artefacts an image gets the same random numbers as in earlier runs.
        if self.artefacts and rng.random() < self.artefacts:
            image = draw_artefacts(image, rng)
        if self.cameras:
            image = change_camera(image, rng)
        return self._cut_out(self._recolour(image, rng), rng)

    @classmethod
    def of(cls, kind: str, artefacts: float) -> "Augmentation":
        """The changes of a run.

        Args:
            kind: ``standard``, or ``cameras`` for stronger changes that hide where an image came from. Some archives
                squash their frames of 4:3 into a square, and the greatest stretch undoes that.
            artefacts: see `Augmentation`.
        """
        if kind == "standard":
            return cls(artefacts=artefacts)
        return cls(artefacts=artefacts, cameras=True, stretch=1.2, saturation=0.35, white_balance=0.12)

    def _warp(self, source: RGBImage, size: int, rng: np.random.Generator) -> RGBImage:
        height, width = source.shape[:2]
        scale = size / min(height, width) * np.exp(rng.uniform(*np.log(self.scale)))
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(0, 360), scale)
        stretch = np.exp(rng.uniform(-1, 1) * np.log(self.stretch))
        matrix[0], matrix[1] = matrix[0] * stretch, matrix[1] / stretch
        # Scaling the rows moved the middle, which the rotation had left in place.
        matrix[:, 2] += np.array((width / 2 * (1 - stretch), height / 2 * (1 - 1 / stretch)))
        if rng.random() < 0.5:
            # A mirrored first column mirrors the image; with any rotation this covers every flip.
            matrix[:, 2] = matrix[:, 2] + matrix[:, 0] * width
            matrix[:, 0] *= -1
        middle = np.array((size - width, size - height)) / 2
        matrix[:, 2] = matrix[:, 2] + middle + rng.uniform(-self.shift, self.shift, 2) * size
        return cv2.warpAffine(  # type: ignore[return-value]
            source, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        )

    def _recolour(self, image: RGBImage, rng: np.random.Generator) -> RGBImage:
        saturation = 1 + rng.uniform(-self.saturation, self.saturation)
        contrast = 1 + rng.uniform(-self.contrast, self.contrast)
        brightness = 255 * rng.uniform(-self.brightness, self.brightness)
        balance = 1 + rng.uniform(-self.white_balance, self.white_balance, 3)
        mean = np.mean(cv2.mean(image)[:3])
        # All of it is one affine change of the colours; OpenCV does it in a tenth of the time of NumPy's many passes.
        matrix = contrast * (saturation * np.eye(3) + (1 - saturation) / 3)
        offset = (1 - contrast) * mean + brightness
        change = balance[:, None] * np.column_stack((matrix, np.full(3, offset)))
        return cv2.transform(image, change)  # type: ignore[return-value]

    def _cut_out(self, image: RGBImage, rng: np.random.Generator) -> RGBImage:
        if rng.random() >= self.cutout:
            return image
        size = image.shape[0]
        height, width = (rng.uniform(0.1, self.cutout_side, 2) * size).astype(int)
        top, left = rng.integers(0, size - height), rng.integers(0, size - width)
        image[top : top + height, left : left + width] = cv2.mean(image)[:3]
        return image
