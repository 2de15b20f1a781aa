"""The triage flag of a calibrated probability."""

from db.status import TriageFlag
from worker.errors import EngineError


def triage_flag(probability: float, *, threshold: float, borderline_threshold: float) -> TriageFlag:
    """Flag a scored image.

    Args:
        probability: calibrated probability of melanoma.
        threshold: of the job's policy. From it on the flag is ``high_risk``.
        borderline_threshold: lower end of the band of uncertainty below the threshold.

    Returns:
        ``high_risk``, ``borderline`` or ``lower_priority``.

    Raises:
        EngineError: the probability is not a number from 0 to 1. Compared with a threshold, NaN would look like a low
            probability.
    """
    if not 0 <= probability <= 1:
        raise EngineError(f"the calibrated probability is {probability}, not a number from 0 to 1")
    if probability >= threshold:
        return TriageFlag.HIGH_RISK
    if probability >= borderline_threshold:
        return TriageFlag.BORDERLINE
    return TriageFlag.LOWER_PRIORITY
