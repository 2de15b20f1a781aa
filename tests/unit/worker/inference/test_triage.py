"""Triage flags: the threshold itself is high risk, and no word reassures."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from db import status
from db.status import TriageFlag
from worker.errors import EngineError
from worker.inference.triage import triage_flag

REASSURING = ("benign", "normal", "healthy", "harmless", "safe", "negative", "no_risk")
URGENCY = [TriageFlag.LOWER_PRIORITY, TriageFlag.BORDERLINE, TriageFlag.HIGH_RISK]
shares = st.floats(0.001, 0.999)


@pytest.mark.parametrize(
    ("probability", "flag"),
    [
        (1.0, TriageFlag.HIGH_RISK),
        (0.3, TriageFlag.HIGH_RISK),
        (math.nextafter(0.3, 0), TriageFlag.BORDERLINE),
        (0.2, TriageFlag.BORDERLINE),
        (math.nextafter(0.2, 0), TriageFlag.LOWER_PRIORITY),
        (0.0, TriageFlag.LOWER_PRIORITY),
    ],
)
def test_flags_at_and_around_the_limits(probability: float, flag: TriageFlag) -> None:
    assert triage_flag(probability, threshold=0.3, borderline_threshold=0.2) is flag


def test_without_a_band_nothing_is_borderline() -> None:
    assert triage_flag(0.3, threshold=0.3, borderline_threshold=0.3) is TriageFlag.HIGH_RISK
    assert triage_flag(math.nextafter(0.3, 0), threshold=0.3, borderline_threshold=0.3) is TriageFlag.LOWER_PRIORITY


@settings(deadline=None)
@given(limits=st.tuples(shares, shares), probabilities=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_a_higher_probability_never_has_a_lesser_flag(
    limits: tuple[float, float], probabilities: tuple[float, float]
) -> None:
    low, high = (triage_flag(p, threshold=max(limits), borderline_threshold=min(limits)) for p in sorted(probabilities))
    assert URGENCY.index(low) <= URGENCY.index(high)


@pytest.mark.parametrize("probability", [math.nan, math.inf, -math.inf, -0.1, 1.1])
def test_a_probability_that_is_none_gets_no_flag(probability: float) -> None:
    """Compared with a threshold, NaN would come out as a lower priority."""
    with pytest.raises(EngineError, match="not a number from 0 to 1"):
        triage_flag(probability, threshold=0.3, borderline_threshold=0.2)


def test_no_status_flag_or_reason_reassures() -> None:
    kinds = (status.JobStatus, status.ImageStatus, status.FailureCode, status.UngradableReason, status.TriageFlag)
    words = [f"{member.name} {member.value}".lower() for kind in kinds for member in kind]
    for word in REASSURING:
        assert not [text for text in words if word in text]


def test_the_flags_are_these_four() -> None:
    assert {flag.value for flag in TriageFlag} == {"high_risk", "borderline", "lower_priority", "ungradable"}
