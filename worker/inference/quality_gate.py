"""The quality gate and the out-of-distribution gate: which images go to a human without a score."""

from dataclasses import dataclass

from db.status import UngradableReason
from worker.images.colour import RGBImage
from worker.images.out_of_distribution import ImageStatistics
from worker.images.quality import measure_quality
from worker.inference.bundle import Bundle, QualityLimits

#: Why an image is ungradable, and a sentence for a person.
Refusal = tuple[UngradableReason, str]


@dataclass(frozen=True, kw_only=True)
class QualityGate:
    """The limits of a bundle.

    Args:
        limits: of the quality measures.
        statistics: of the training images. None for a bundle without an out-of-distribution gate.
        max_distance: distance from the training images beyond which an image is out of distribution.
    """

    limits: QualityLimits
    statistics: ImageStatistics | None = None
    max_distance: float | None = None

    @classmethod
    def load(cls, bundle: Bundle) -> "QualityGate":
        """Load the gates of a verified bundle.

        Raises:
            BundleError: the file with the image statistics was changed or is invalid.
        """
        described = bundle.manifest.out_of_distribution
        if described is None or described.limit is None:
            return cls(limits=bundle.manifest.quality)
        statistics = ImageStatistics.from_bytes(bundle.read(described.file))
        return cls(limits=bundle.manifest.quality, statistics=statistics, max_distance=described.limit)

    def check_size(self, short_side: int) -> Refusal | None:
        """Check an image before it is resized: a strip one pixel high would become gigabytes at the model's height.

        Args:
            short_side: of the picture in its file, in pixels.

        Returns:
            Why the image is ungradable, or None.
        """
        if short_side >= self.limits.short_side:
            return None
        return (
            UngradableReason.TOO_SMALL,
            f"the short side has {short_side} pixels; at least {self.limits.short_side} are needed",
        )

    def check(self, short_side: int, model_input: RGBImage) -> Refusal | None:
        """Check the size, contrast, sharpness and appearance of an image.

        Args:
            short_side: of the picture in its file, in pixels.
            model_input: the same image, preprocessed, (size, size, 3), uint8, RGB.

        Returns:
            Why the image is ungradable, or None.
        """
        if (too_small := self.check_size(short_side)) is not None:
            return too_small
        quality = measure_quality(short_side, model_input)
        if quality.contrast < self.limits.contrast:
            return (
                UngradableReason.NO_CONTRAST,
                f"nearly one tone: contrast {quality.contrast:.2f}, the least accepted is {self.limits.contrast:.2f}",
            )
        if quality.sharpness < self.limits.sharpness:
            return (
                UngradableReason.BLURRED,
                f"blurred: sharpness {quality.sharpness:.2f}, the least accepted is {self.limits.sharpness:.2f}",
            )
        if self.statistics is None or self.max_distance is None:
            return None
        distance = self.statistics.distance(model_input)
        if distance <= self.max_distance:
            return None
        return (
            UngradableReason.OUT_OF_DISTRIBUTION,
            f"does not look like dermoscopy: distance {distance:.2f} from the training images, at most "
            f"{self.max_distance:.2f} is accepted",
        )
