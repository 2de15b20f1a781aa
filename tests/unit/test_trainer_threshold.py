"""Youden's threshold against worked numbers and against trying every threshold."""

import doctest
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from trainer.threshold import Floats, Labels, operating_point, youden_band, youden_threshold

LABELS = np.array([0, 0, 1, 1])
PROBABILITIES = np.array([0.1, 0.4, 0.35, 0.8])


#: Few distinct probabilities, so that images of both classes tie.
@st.composite
def tied(draw: st.DrawFn) -> tuple[Labels, Floats]:
    rest = draw(st.lists(st.tuples(st.integers(0, 1), st.integers(1, 12)), min_size=0, max_size=40))
    images = [(0, draw(st.integers(1, 12))), (1, draw(st.integers(1, 12))), *rest]
    labels, steps = np.array(images).T
    return labels, steps / 13


def youden(labels: Labels, probabilities: Floats, threshold: float) -> Fraction:
    """J in exact numbers."""
    called = probabilities >= threshold
    melanoma, nevus = labels == 1, labels == 0
    return (
        Fraction(int((called & melanoma).sum()), int(melanoma.sum()))
        + Fraction(int((~called & nevus).sum()), int(nevus.sum()))
        - 1
    )


def test_worked_numbers() -> None:
    # At 0.8: sensitivity 1/2, specificity 1. At 0.35: sensitivity 1, specificity 1/2. Equal J, so the lower one,
    # halfway to 0.1.
    assert youden_threshold(LABELS, PROBABILITIES) == pytest.approx(0.225)
    # 0.7 calls both melanomas and no nevus; halfway to 0.3.
    assert youden_threshold(np.array([0, 1, 0, 1]), np.array([0.3, 0.7, 0.2, 0.9])) == pytest.approx(0.5)


def test_the_docstrings_example_is_true() -> None:
    (example,) = doctest.DocTestParser().get_examples(youden_threshold.__doc__ or "")
    found = eval(example.source, {"np": np, "youden_threshold": youden_threshold})
    assert found == pytest.approx(float(example.want), abs=1e-12)


def test_operating_point_counts_an_image_at_the_threshold_as_called() -> None:
    point = operating_point(LABELS, PROBABILITIES, 0.4)
    assert (point.threshold, point.sensitivity, point.specificity) == (0.4, 0.5, 0.5)
    above = operating_point(LABELS, PROBABILITIES, 0.41)
    assert (above.sensitivity, above.specificity) == (0.5, 1.0)


@settings(max_examples=200, deadline=None)
@given(tied())
def test_it_is_the_lowest_of_the_best_thresholds_halfway_to_the_next_lower_image(data: tuple[Labels, Floats]) -> None:
    labels, probabilities = data
    distinct = np.unique(probabilities)
    j = [youden(labels, probabilities, value) for value in distinct]
    best = j.index(max(j))
    below = distinct[best - 1] if best else distinct[best]
    assert youden_threshold(labels, probabilities) == pytest.approx((distinct[best] + below) / 2, abs=1e-12)


@settings(max_examples=200, deadline=None)
@given(tied())
def test_its_operating_point_reaches_the_greatest_j_of_the_roc_curve(data: tuple[Labels, Floats]) -> None:
    labels, probabilities = data
    false_positive_rate, true_positive_rate, _ = roc_curve(labels, probabilities)
    point = operating_point(labels, probabilities, youden_threshold(labels, probabilities))
    assert point.sensitivity + point.specificity - 1 == pytest.approx((true_positive_rate - false_positive_rate).max())


def test_among_equal_j_the_one_with_more_melanomas_found_wins_despite_rounding() -> None:
    # J is 1/3 at 0.6 (1/3 + 1 - 1) and 1/3 at 0.2 (3/3 + 1/3 - 1); as floating-point sums the two can differ.
    labels = np.array([1, 0, 0, 1, 1, 0])
    probabilities = np.array([0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    assert youden(labels, probabilities, 0.6) == youden(labels, probabilities, 0.2) == Fraction(1, 3)
    assert youden_threshold(labels, probabilities) == pytest.approx(0.15)


def test_with_every_probability_the_same_everything_is_called() -> None:
    probabilities = np.full(4, 0.3)
    threshold = youden_threshold(LABELS, probabilities)
    assert operating_point(LABELS, probabilities, threshold).sensitivity == 1


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_alone_is_refused(label: int) -> None:
    labels = np.full(4, label)
    with pytest.raises(ValueError, match=f"Received: {4 * label} melanomas among 4 images"):
        youden_threshold(labels, PROBABILITIES)
    with pytest.raises(ValueError, match="at least one melanoma and one nevus"):
        operating_point(labels, PROBABILITIES, 0.5)


def test_halfway_between_neighbouring_numbers_is_not_the_lower_one() -> None:
    # 0.5 is the even one of the two, so the exact middle rounds to it and would call the nevus.
    labels, probabilities = np.array([0, 1, 0, 1]), np.array([0.5, np.nextafter(0.5, 1), 0.1, 0.9])
    point = operating_point(labels, probabilities, youden_threshold(labels, probabilities))
    assert (point.sensitivity, point.specificity) == (1, 1)


def test_the_band_begins_at_or_below_the_threshold_and_repeats() -> None:
    chance = np.random.default_rng(5)
    labels = np.repeat([0, 1], (80, 30))
    probabilities = np.clip(chance.normal(np.where(labels == 1, 0.6, 0.35), 0.18), 0.01, 0.99)
    lesions = np.array([f"HAM_{number // 2}" for number in range(110)], object)
    band = youden_band(labels, probabilities, lesions, seed=1)
    threshold = youden_threshold(labels, probabilities)
    # A small, overlapping sample: the threshold is uncertain, so the band has a width.
    assert 0 < band < threshold
    assert band == youden_band(labels, probabilities, lesions, seed=1)


def test_the_band_never_lies_above_the_threshold() -> None:
    """The lowest of equal thresholds stands on one image; most resamples that miss it put theirs higher."""
    labels = np.array([0] * 20 + [1] * 20)
    probabilities = np.concatenate((np.full(20, 0.2), np.full(19, 0.9), [0.3]))
    lesions = np.arange(40).astype(object)
    assert youden_band(labels, probabilities, lesions, seed=2) <= youden_threshold(labels, probabilities)


def test_the_band_of_two_levels_has_no_width() -> None:
    labels, probabilities = np.repeat([0, 1], 20), np.repeat([0.2, 0.8], 20)
    lesions = np.arange(40).astype(object)
    assert youden_band(labels, probabilities, lesions, seed=3) == youden_threshold(labels, probabilities) == 0.5
