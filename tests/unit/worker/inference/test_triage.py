"""Flags and gates: the threshold belongs to the high risk, and no word reassures."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from db import status
from db.status import TriageFlag, UngradableReason
from worker.images.quality import Quality, measure_quality
from worker.inference.bundle import QualityLimits
from worker.inference.triage import triage_flag, why_ungradable, why_unlike_dermoscopy
from worker.synthetic.lesion import draw_lesion

LIMITS = QualityLimits(short_side=200, contrast=4.0, sharpness=10.0)
GOOD = {"short_side": 450, "contrast": 30.0, "sharpness": 200.0}
URGENCY = [TriageFlag.LOW_RISK, TriageFlag.BORDERLINE, TriageFlag.HIGH_RISK]
shares = st.floats(0.001, 0.999)


@pytest.mark.parametrize(
    ("probability", "flag"),
    [
        (1.0, TriageFlag.HIGH_RISK),
        (0.3, TriageFlag.HIGH_RISK),
        (math.nextafter(0.3, 0), TriageFlag.BORDERLINE),
        (0.2, TriageFlag.BORDERLINE),
        (math.nextafter(0.2, 0), TriageFlag.LOW_RISK),
        (0.0, TriageFlag.LOW_RISK),
    ],
)
def test_flags_at_and_around_the_limits(probability: float, flag: TriageFlag) -> None:
    assert triage_flag(probability, threshold=0.3, borderline_from=0.2) is flag


def test_without_a_band_nothing_is_borderline() -> None:
    assert triage_flag(0.3, threshold=0.3, borderline_from=0.3) is TriageFlag.HIGH_RISK
    assert triage_flag(math.nextafter(0.3, 0), threshold=0.3, borderline_from=0.3) is TriageFlag.LOW_RISK


@settings(deadline=None)
@given(limits=st.tuples(shares, shares), probabilities=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_a_higher_probability_never_has_a_lesser_flag(
    limits: tuple[float, float], probabilities: tuple[float, float]
) -> None:
    low, high = (triage_flag(p, threshold=max(limits), borderline_from=min(limits)) for p in sorted(probabilities))
    assert URGENCY.index(low) <= URGENCY.index(high)


def test_a_good_image_passes_the_gate_and_so_does_one_at_every_limit() -> None:
    assert why_ungradable(Quality(**GOOD), LIMITS) is None
    assert why_ungradable(Quality(short_side=200, contrast=4.0, sharpness=10.0), LIMITS) is None


@pytest.mark.parametrize(
    ("measure", "value", "reason", "said"),
    [
        ("short_side", 199, UngradableReason.TOO_SMALL, "199 pixels, at least 200"),
        ("contrast", 3.99, UngradableReason.NO_CONTRAST, "contrast 3.99, the least accepted is 4.00"),
        ("sharpness", 9.99, UngradableReason.BLURRED, "sharpness 9.99, the least accepted is 10.00"),
    ],
)
def test_below_a_limit_the_reason_gives_the_measure_and_the_limit(
    measure: str, value: float, reason: UngradableReason, said: str
) -> None:
    stopped = why_ungradable(Quality(**{**GOOD, measure: value}), LIMITS)
    assert stopped is not None
    assert stopped[0] is reason
    assert said in stopped[1]


def test_what_is_too_far_from_dermoscopy_is_stopped_and_the_limit_itself_passes() -> None:
    assert why_unlike_dermoscopy(9.5, 9.5) is None
    assert why_unlike_dermoscopy(12.34, 9.5) == (
        UngradableReason.UNLIKE_DERMOSCOPY,
        "does not look like dermoscopy: 12.34 from the training images, the farthest accepted is 9.50",
    )


def test_measures_tell_a_lesion_from_a_lens_cap_and_a_blur() -> None:
    picture = draw_lesion(1, width=300, height=240)
    sharp = measure_quality(picture, picture)
    assert sharp.short_side == 240
    cap = measure_quality(picture * 0 + 12, picture * 0 + 12)
    assert (cap.contrast, cap.sharpness) == (0, 0)
    averaged = picture.reshape(24, 10, 30, 10, 3).mean(axis=(1, 3)).repeat(10, axis=0).repeat(10, axis=1)
    smooth = averaged.astype("uint8")
    assert measure_quality(picture, smooth).sharpness < sharp.sharpness / 2


def test_no_status_flag_or_reason_reassures() -> None:
    kinds = (status.JobStatus, status.ImageStatus, status.FailureCode, status.UngradableReason, status.TriageFlag)
    words = [f"{member.name} {member.value}".lower() for kind in kinds for member in kind]
    for measure in GOOD:
        stopped = why_ungradable(Quality(**{**GOOD, measure: 0}), LIMITS)
        assert stopped is not None
        words.append(stopped[1].lower())
    for word in ("benign", "normal", "healthy", "harmless", "safe", "negative", "no_risk"):
        assert not [text for text in words if word in text]


def test_the_flags_are_these_four() -> None:
    assert {flag.value for flag in TriageFlag} == {"high_risk", "borderline", "low_risk", "ungradable"}
