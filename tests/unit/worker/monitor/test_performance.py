"""Flags beside diagnoses: the right shares by case, and a refusal to conclude from too little."""

import math

import pytest
from scipy.stats import binomtest

from db.feedback import ReviewedImage
from db.status import ImageStatus, TriageFlag
from worker.monitor.performance import Share, is_melanoma, measure


def image(number: int, flag: TriageFlag | None, diagnosis: str | None, lesion: str | None = None) -> ReviewedImage:
    status = ImageStatus.SCORED if flag else ImageStatus.FAILED
    return ReviewedImage(
        image_id=number, lesion_id=lesion, status=status, flag=flag, probability=0.5, diagnosis=diagnosis
    )


@pytest.mark.parametrize(("hits", "of"), [(0, 5), (5, 5), (18, 20), (1, 300)])
def test_the_interval_is_wilsons(hits: int, of: int) -> None:
    expected = binomtest(hits, of).proportion_ci(method="wilson")
    assert Share(hits=hits, of=of).interval == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_of_nothing_there_is_no_share() -> None:
    assert math.isnan(Share(hits=0, of=0).value)
    assert Share(hits=0, of=0).interval == (0.0, 1.0)


@pytest.mark.parametrize(
    ("diagnosis", "melanoma"),
    [
        ("melanoma", True), ("Melanoma in situ", True), ("mel", True), ("superficial spreading melanoma, 0.4 mm", True),
        ("lentigo maligna", True), ("nevus", False), ("no melanoma", False), ("melanoma excluded", False),
        ("melanocytic nevus", False), ("bcc", False), ("kein Melanom", False), ("Melanom", True),
        ("superficial spreading melanoma arising in a dysplastic nevus", True), ("nevus-associated melanoma", True),
        ("melanoma, no ulceration", True), ("melanoma, ulceration not present", True), ("MM", True), ("LMM", True),
        ("SSM, Breslow 0.4 mm", True), ("keine Anzeichen für Melanom", False), ("no evidence of melanoma", False),
        ("suspected melanoma", None), ("melanoma? rather seborrhoeic keratosis", None), ("v.a. Melanom", None),
    ],
)  # fmt: skip
def test_what_a_reviewer_calls_melanoma(diagnosis: str, melanoma: bool | None) -> None:
    assert is_melanoma(diagnosis) is melanoma


def test_cases_count_once_and_bias_is_named() -> None:
    high, low = TriageFlag.HIGH_RISK, TriageFlag.LOWER_PRIORITY
    images = [image(n, high, "melanoma") for n in range(18)] + [image(100 + n, low, "melanoma") for n in range(2)]
    images += [image(200 + n, high, "nevus") for n in range(10)] + [image(300 + n, low, "nevus") for n in range(30)]
    # One lesion of three images: flagged by one of them, diagnosed on another.
    images += [image(400, high, None, "L"), image(401, low, "melanoma", "L"), image(402, None, None, "L")]
    images += [image(500 + n, low, None) for n in range(100)] + [image(600, None, "melanoma")]
    found = measure(images)
    assert (found.sensitivity.hits, found.sensitivity.of) == (19, 21)
    assert (found.specificity.hits, found.specificity.of) == (30, 40)
    assert (found.predictive.hits, found.predictive.of) == (19, 29)
    assert found.not_scored == 1
    (bias,) = found.caveats()
    assert "Verification bias: 100% of high-risk cases have a diagnosis, and 24% of the others" in bias


def test_an_open_diagnosis_is_not_counted_and_named() -> None:
    found = measure([image(1, TriageFlag.HIGH_RISK, "melanoma?"), image(2, TriageFlag.HIGH_RISK, "melanoma")])
    assert (found.sensitivity.of, found.unclear) == (1, 1)
    assert "leaves melanoma open" in found.caveats()[0]


def test_too_few_are_no_conclusion() -> None:
    found = measure([image(1, TriageFlag.HIGH_RISK, "melanoma"), image(2, TriageFlag.HIGH_RISK, "nevus")])
    assert any("Too few melanomas" in caveat for caveat in found.caveats())
