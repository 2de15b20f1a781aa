"""The quality gate and the out-of-distribution gate: which images go to a human unscored, and which are noted."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from db.status import QualityNote, UngradableReason
from worker.images.colour import RGBImage
from worker.images.ood_detector import OodDetector
from worker.images.out_of_distribution import Floats, ImageStatistics, measure_image_statistics
from worker.images.quality import Quality, measure_quality
from worker.inference.bundle import Bundle, QualityLimits, QualityNotes

#: Why an image is ungradable, and a sentence for a person.
Refusal = tuple[UngradableReason, str]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """An image that has passed the gates so far.

    Args:
        quality: its measures.
        notes: what is unusual about it.
        statistics: of its appearance, for `QualityGate.check_features`. None where that has nothing to check.
        ood_score: distance or score of the out-of-distribution gate. None where it is not known yet, or there is none.
    """

    quality: Quality
    notes: tuple[QualityNote, ...]
    statistics: Floats | None = None
    ood_score: float | None = None


@dataclass(frozen=True, kw_only=True)
class QualityGate:
    """The limits of a bundle.

    Args:
        limits: of the quality measures.
        noted: limits beyond which an image is scored and noted. None for a bundle from before them.
        statistics: of the training images. None for a bundle without this out-of-distribution gate.
        detector: the other kind of out-of-distribution gate, or None.
        max_score: distance or score beyond which an image is out of distribution.
        noted_score: distance or score beyond which it is noted as unusual.
    """

    limits: QualityLimits
    noted: QualityNotes | None = None
    statistics: ImageStatistics | None = None
    detector: OodDetector | None = None
    max_score: float | None = None
    noted_score: float | None = None

    @classmethod
    def load(cls, bundle: Bundle) -> "QualityGate":
        """Load the gates of a verified bundle.

        Raises:
            BundleError: the file with the image statistics was changed or is invalid.
        """
        manifest = bundle.manifest
        described = manifest.out_of_distribution
        if described is None or described.limit is None:
            return cls(limits=manifest.quality, noted=manifest.quality_notes)
        data, detects = bundle.read(described.file), described.kind == "detector"
        return cls(
            limits=manifest.quality,
            noted=manifest.quality_notes,
            statistics=None if detects else ImageStatistics.from_bytes(data),
            detector=OodDetector.from_bytes(data) if detects else None,
            max_score=described.limit,
            noted_score=described.noted,
        )

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

    def check(self, short_side: int, model_input: RGBImage) -> Refusal | Measured:
        """Check everything that can be checked before inference.

        Args:
            short_side: of the picture in its file, in pixels.
            model_input: the same image, preprocessed, (size, size, 3), uint8, RGB.

        Returns:
            Why the image is ungradable, or what was measured.
        """
        if (too_small := self.check_size(short_side)) is not None:
            return too_small
        quality = measure_quality(short_side, model_input)
        if (refusal := next(self._refusals(quality), None)) is not None:
            return refusal
        notes = tuple(self._notes(quality))
        if self.detector is not None:
            return Measured(quality=quality, notes=notes, statistics=measure_image_statistics(model_input))
        if self.statistics is None or self.max_score is None:
            return Measured(quality=quality, notes=notes)
        return self._within(Measured(quality=quality, notes=notes), self.statistics.distance(model_input))

    def check_features(self, measured: Measured, features: npt.NDArray[np.float32]) -> Refusal | Measured:
        """Check what can be checked only after inference.

        Args:
            measured: from `check`.
            features: the network's pooled features of the image, (channels,).

        Returns:
            Why the image is ungradable, or what was measured.

        Raises:
            EngineError: the network has other features than the bundle's detector.
        """
        if self.detector is None or measured.statistics is None:
            return measured
        return self._within(measured, float(self.detector.scores(measured.statistics[None], features[None])[0]))

    def _within(self, measured: Measured, score: float) -> Refusal | Measured:
        # Not a number is beyond it, too.
        if self.max_score is not None and not score <= self.max_score:
            return (
                UngradableReason.OUT_OF_DISTRIBUTION,
                f"does not look like dermoscopy: {score:.2f} from the training images, at most {self.max_score:.2f} is "
                "accepted",
            )
        unusual = self.noted_score is not None and score > self.noted_score
        notes = (*measured.notes, QualityNote.UNUSUAL) if unusual else measured.notes
        return Measured(quality=measured.quality, notes=notes, ood_score=score)

    def _refusals(self, quality: Quality) -> Iterator[Refusal]:
        limits = self.limits
        for reason, found, least, what in (
            (UngradableReason.NO_CONTRAST, quality.contrast, limits.contrast, "nearly one tone: contrast"),
            (UngradableReason.BLURRED, quality.sharpness, limits.sharpness, "blurred: sharpness"),
            (UngradableReason.TOO_DARK, quality.brightness, limits.darkest, "too dark: mean grey value"),
        ):
            if least is not None and found < least:
                yield reason, f"{what} {found:.2f}, the least accepted is {least:.2f}"
        for reason, found, most, what in (
            (UngradableReason.TOO_BRIGHT, quality.brightness, limits.brightest, "too bright: mean grey value"),
            (
                UngradableReason.GLARE,
                quality.glare,
                limits.glare,
                "mostly white, by reflections or because it is no skin: share",
            ),
            (UngradableReason.DARK_FRAME, quality.frame, limits.frame, "mostly a dark frame: share"),
        ):
            if most is not None and found > most:
                yield reason, f"{what} {found:.2f}, the most accepted is {most:.2f}"

    def _notes(self, quality: Quality) -> Iterator[QualityNote]:
        noted = self.noted
        if noted is None:
            return
        for note, outside in (
            (QualityNote.LOW_CONTRAST, quality.contrast < noted.contrast),
            (QualityNote.BLURRED, quality.sharpness < noted.sharpness),
            (QualityNote.DARK, quality.brightness < noted.darkest),
            (QualityNote.BRIGHT, quality.brightness > noted.brightest),
            (QualityNote.GLARE, quality.glare > noted.glare),
            (QualityNote.DARK_FRAME, quality.frame > noted.frame),
            (QualityNote.HAIR, quality.hair > noted.hair),
        ):
            if outside:
                yield note
