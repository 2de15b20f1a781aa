"""The quality gate: limits are inclusive, and the sentence names the measure and the limit."""

from typing import Any

import numpy as np
import pytest

from db.status import UngradableReason
from worker.images.out_of_distribution import MEASURES, ImageStatistics
from worker.images.quality import Quality
from worker.inference.bundle import QualityLimits
from worker.inference.quality_gate import QualityGate

LIMITS = QualityLimits(short_side=200, contrast=4.0, sharpness=10.0)
GOOD = {"short_side": 450, "contrast": 30.0, "sharpness": 200.0}
IMAGE = np.zeros((450, 600, 3), np.uint8)
REASSURING = ("benign", "normal", "healthy", "harmless", "safe", "negative", "no_risk")


def check(monkeypatch: pytest.MonkeyPatch, **measured: Any) -> tuple[UngradableReason, str] | None:
    """What the gate says of an image with these measures."""
    quality = Quality(**{**GOOD, **measured})
    monkeypatch.setattr("worker.inference.quality_gate.measure_quality", lambda short_side, model_input: quality)
    return QualityGate(limits=LIMITS).check(quality.short_side, IMAGE)


def test_a_good_image_passes_and_so_does_one_at_every_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check(monkeypatch) is None
    assert check(monkeypatch, short_side=200, contrast=4.0, sharpness=10.0) is None


@pytest.mark.parametrize(
    ("measure", "value", "reason", "said"),
    [
        ("short_side", 199, UngradableReason.TOO_SMALL, "199 pixels; at least 200"),
        ("contrast", 3.99, UngradableReason.NO_CONTRAST, "contrast 3.99, the least accepted is 4.00"),
        ("sharpness", 9.99, UngradableReason.BLURRED, "sharpness 9.99, the least accepted is 10.00"),
    ],
)
def test_below_a_limit_the_sentence_gives_the_measure_and_the_limit(
    monkeypatch: pytest.MonkeyPatch, measure: str, value: float, reason: UngradableReason, said: str
) -> None:
    refusal = check(monkeypatch, **{measure: value})
    assert refusal is not None
    assert refusal[0] is reason
    assert said in refusal[1]
    assert not [word for word in REASSURING if word in refusal[1].lower()]


def test_an_image_beyond_the_distance_is_out_of_distribution_and_one_at_it_passes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "worker.inference.quality_gate.measure_quality", lambda short_side, model_input: Quality(**GOOD)
    )
    monkeypatch.setattr(ImageStatistics, "distance", lambda self, model_input: 9.5)
    statistics = ImageStatistics(mean=np.zeros((1, MEASURES)), precision=np.eye(MEASURES)[None])
    at, below = (QualityGate(limits=LIMITS, statistics=statistics, max_distance=limit) for limit in (9.5, 9.4))
    assert at.check(450, IMAGE) is None
    refusal = below.check(450, IMAGE)
    assert refusal is not None
    assert refusal[0] is UngradableReason.OUT_OF_DISTRIBUTION
    assert "distance 9.50 from the training images, at most 9.40 is accepted" in refusal[1]
