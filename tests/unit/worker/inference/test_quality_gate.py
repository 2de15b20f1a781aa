"""The quality gate: limits are inclusive, and the sentence names the measure and the limit."""

from typing import Any

import numpy as np
import pytest

from db.status import QualityNote, UngradableReason
from worker.errors import EngineError
from worker.images.ood_detector import OodDetector
from worker.images.out_of_distribution import MEASURES, ImageStatistics
from worker.images.quality import Quality
from worker.inference.bundle import QualityLimits, QualityNotes
from worker.inference.quality_gate import Measured, QualityGate, Refusal

LIMITS = QualityLimits(
    short_side=200, contrast=4.0, sharpness=10.0, darkest=30.0, brightest=245.0, glare=0.7, frame=0.8
)
NOTED = QualityNotes(contrast=8.0, sharpness=20.0, darkest=90.0, brightest=225.0, glare=0.1, frame=0.6, hair=0.1)
GOOD = {
    "short_side": 450, "contrast": 30.0, "sharpness": 200.0, "brightness": 150.0, "glare": 0.0, "frame": 0.0,
    "hair": 0.0,
}  # fmt: skip
IMAGE = np.zeros((450, 600, 3), np.uint8)
REASSURING = ("benign", "normal", "healthy", "harmless", "safe", "negative", "no_risk")


def check(monkeypatch: pytest.MonkeyPatch, **measured: Any) -> Refusal | Measured:
    """What the gate says of an image with these measures."""
    quality = Quality(**{**GOOD, **measured})
    monkeypatch.setattr("worker.inference.quality_gate.measure_quality", lambda short_side, model_input: quality)
    return QualityGate(limits=LIMITS, noted=NOTED).check(quality.short_side, IMAGE)


def test_a_good_image_passes_and_so_does_one_at_every_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    good = check(monkeypatch)
    assert isinstance(good, Measured)
    assert good.notes == ()
    assert isinstance(check(monkeypatch, short_side=200, contrast=4.0, sharpness=10.0), Measured)
    assert isinstance(check(monkeypatch, brightness=30.0, glare=0.7), Measured)
    assert isinstance(check(monkeypatch, brightness=245.0, frame=0.8, hair=1.0), Measured)


@pytest.mark.parametrize(
    ("measure", "value", "reason", "said"),
    [
        ("short_side", 199, UngradableReason.TOO_SMALL, "199 pixels; at least 200"),
        ("contrast", 3.99, UngradableReason.NO_CONTRAST, "contrast 3.99, the least accepted is 4.00"),
        ("sharpness", 9.99, UngradableReason.BLURRED, "sharpness 9.99, the least accepted is 10.00"),
        ("brightness", 29.99, UngradableReason.TOO_DARK, "mean grey value 29.99, the least accepted is 30.00"),
        ("brightness", 245.01, UngradableReason.TOO_BRIGHT, "mean grey value 245.01, the most accepted is 245.00"),
        ("glare", 0.71, UngradableReason.GLARE, "share 0.71, the most accepted is 0.70"),
        ("frame", 0.81, UngradableReason.DARK_FRAME, "share 0.81, the most accepted is 0.80"),
    ],
)
def test_below_a_limit_the_sentence_gives_the_measure_and_the_limit(
    monkeypatch: pytest.MonkeyPatch, measure: str, value: float, reason: UngradableReason, said: str
) -> None:
    refusal = check(monkeypatch, **{measure: value})
    assert isinstance(refusal, tuple)
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
    at, below, unusual = (
        QualityGate(limits=LIMITS, statistics=statistics, max_score=limit, noted_score=noted)
        for limit, noted in ((9.5, None), (9.4, None), (9.9, 9.4))
    )
    passed, noted = at.check(450, IMAGE), unusual.check(450, IMAGE)
    assert isinstance(passed, Measured)
    assert isinstance(noted, Measured)
    assert (passed.notes, passed.ood_score, noted.notes) == ((), 9.5, (QualityNote.UNUSUAL,))
    refusal = below.check(450, IMAGE)
    assert isinstance(refusal, tuple)
    assert refusal[0] is UngradableReason.OUT_OF_DISTRIBUTION
    assert "9.50 from the training images, at most 9.40 is accepted" in refusal[1]


@pytest.mark.parametrize(
    ("measure", "value", "note"),
    [
        ("contrast", 7.9, QualityNote.LOW_CONTRAST),
        ("sharpness", 19.9, QualityNote.BLURRED),
        ("brightness", 89.0, QualityNote.DARK),
        ("brightness", 226.0, QualityNote.BRIGHT),
        ("glare", 0.11, QualityNote.GLARE),
        ("frame", 0.61, QualityNote.DARK_FRAME),
        ("hair", 0.11, QualityNote.HAIR),
    ],
)
def test_borderline_quality_is_noted_and_not_refused(
    monkeypatch: pytest.MonkeyPatch, measure: str, value: float, note: QualityNote
) -> None:
    found = check(monkeypatch, **{measure: value})
    assert isinstance(found, Measured)
    assert found.notes == (note,)


def test_a_detector_waits_for_the_networks_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "worker.inference.quality_gate.measure_quality", lambda short_side, model_input: Quality(**GOOD)
    )
    pairs = MEASURES * (MEASURES + 1) // 2
    detector = OodDetector(
        centre=np.zeros(MEASURES), scale=np.ones(MEASURES), measures=np.zeros(MEASURES), products=np.zeros(pairs),
        features=np.array([1.0, 2.0]), intercept=np.array(0.5),
    )  # fmt: skip
    gate = QualityGate(limits=LIMITS, detector=detector, max_score=3.0, noted_score=2.0)
    before = gate.check(450, IMAGE)
    assert isinstance(before, Measured)
    assert before.ood_score is None
    usual, unusual, beyond = (
        gate.check_features(before, np.array([value, 0.0], np.float32)) for value in (1.0, 2.0, 3.0)
    )
    assert isinstance(usual, Measured)
    assert isinstance(unusual, Measured)
    assert (usual.ood_score, usual.notes, unusual.notes) == (1.5, (), (QualityNote.UNUSUAL,))
    assert isinstance(beyond, tuple)
    assert beyond[0] is UngradableReason.OUT_OF_DISTRIBUTION
    with pytest.raises(EngineError, match="3 features, and the bundle's OOD detector weighs 2"):
        gate.check_features(before, np.zeros(3, np.float32))
