"""From a calibrated probability, or a measure of quality, to what the image is for the person at the worklist."""

from db.status import TriageFlag, UngradableReason
from worker.images.quality import Quality
from worker.inference.bundle import QualityLimits


def triage_flag(probability: float, *, threshold: float, borderline_from: float) -> TriageFlag:
    """Flag a scored image.

    Args:
        probability: calibrated probability of melanoma.
        threshold: of the job's policy; at it and above the flag is ``high_risk``.
        borderline_from: lower end of the band of uncertainty below the threshold.

    Returns:
        ``high_risk``, ``borderline`` or ``low_risk``, which means a lower priority and nothing more.
    """
    if probability >= threshold:
        return TriageFlag.HIGH_RISK
    if probability >= borderline_from:
        return TriageFlag.BORDERLINE
    return TriageFlag.LOW_RISK


def why_too_small(short_side: int, limits: QualityLimits) -> tuple[UngradableReason, str] | None:
    """The part of the quality gate that is asked before an image is resized.

    Args:
        short_side: of the image as stored, in pixels.
        limits: of the bundle.

    Returns:
        Reason and sentence, or None when the image is large enough.
    """
    if short_side >= limits.short_side:
        return None
    return (
        UngradableReason.TOO_SMALL,
        f"its short side has {short_side} pixels, at least {limits.short_side} are needed",
    )


def why_ungradable(quality: Quality, limits: QualityLimits) -> tuple[UngradableReason, str] | None:
    """The quality gate.

    Returns:
        Reason and sentence of the first measure below its limit, or None when the image may be judged.
    """
    if (too_small := why_too_small(quality.short_side, limits)) is not None:
        return too_small
    if quality.contrast < limits.contrast:
        return (
            UngradableReason.NO_CONTRAST,
            f"nearly one tone: contrast {quality.contrast:.2f}, the least accepted is {limits.contrast:.2f}",
        )
    if quality.sharpness < limits.sharpness:
        return (
            UngradableReason.BLURRED,
            f"blurred: sharpness {quality.sharpness:.2f}, the least accepted is {limits.sharpness:.2f}",
        )
    return None


def why_unlike_dermoscopy(distance: float, limit: float) -> tuple[UngradableReason, str] | None:
    """The gate for what is no dermoscopy.

    Args:
        distance: of the image from the training images, `worker.images.out_of_distribution.Appearance.distance`.
        limit: of the bundle.

    Returns:
        Reason and sentence, or None when the image may be judged.
    """
    if distance <= limit:
        return None
    return (
        UngradableReason.UNLIKE_DERMOSCOPY,
        f"does not look like dermoscopy: {distance:.2f} from the training images, the farthest accepted is {limit:.2f}",
    )
