"""Youden's threshold and the proven sensitivity, against worked numbers and against trying every threshold."""

import doctest
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom
from sklearn.metrics import roc_curve

from trainer.errors import TooFewLesionsError
from trainer.thresholds.threshold import (
    Floats,
    Labels,
    Lesions,
    allowed_misses,
    exact_interval,
    lower_bound,
    lowest_of_each_lesion,
    operating_point,
    sensitivity_band,
    sensitivity_threshold,
    youden_band,
    youden_threshold,
)

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
    with pytest.raises(ValueError, match=f"There are {4 * label} melanomas among 4 images"):
        youden_threshold(labels, PROBABILITIES)
    with pytest.raises(ValueError, match="Both classes are needed"):
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


@pytest.mark.parametrize(("misses", "fewest"), [(0, 59), (1, 93), (2, 124), (3, 153)])
def test_the_designs_numbers_of_lesions_prove_a_sensitivity_of_95_percent(misses: int, fewest: int) -> None:
    assert allowed_misses(fewest, 0.95) == misses
    assert allowed_misses(fewest - 1, 0.95) == misses - 1
    assert beta.ppf(0.05, fewest - misses, misses + 1) >= 0.95 > beta.ppf(0.05, fewest - 1 - misses, misses + 1)


@pytest.mark.parametrize(("target", "misses"), [(0.95, 0), (0.90, 4), (0.85, 7)])
def test_what_the_92_validation_lesions_allow(target: float, misses: int) -> None:
    assert allowed_misses(92, target) == misses


@settings(max_examples=100, deadline=None)
@given(lesions=st.integers(1, 200), data=st.data())
def test_the_bound_is_where_so_many_are_caught_with_a_chance_of_5_percent(lesions: int, data: st.DataObject) -> None:
    caught = data.draw(st.integers(1, lesions))
    assert binom.sf(caught - 1, lesions, lower_bound(caught, lesions)) == pytest.approx(0.05, abs=1e-9)


def test_the_bound_of_none_caught_is_zero() -> None:
    assert lower_bound(0, 10) == 0


def test_the_exact_interval_by_hand() -> None:
    # 12 of 12: the lower end is 0.025 ** (1 / 12).
    low, high = exact_interval(12, 12)
    assert (low, high) == (pytest.approx(0.025 ** (1 / 12)), 1)
    assert exact_interval(0, 12) == (0, pytest.approx(1 - 0.025 ** (1 / 12)))


def test_a_proven_sensitivity_by_hand() -> None:
    """59 melanoma lesions and 0.95: none may be missed, so the threshold lies below the lowest melanoma image."""
    melanomas = np.linspace(0.40, 0.98, 59)
    probabilities = np.concatenate((melanomas, [0.30, 0.35, 0.50]))
    labels = np.array([1] * 59 + [0] * 3)
    threshold = sensitivity_threshold(labels, probabilities, np.arange(62).astype(object), target=0.95)
    assert threshold == pytest.approx((0.40 + 0.35) / 2)
    # One lesion more than 92 allows one miss: the second lowest sets the threshold.
    melanomas = np.linspace(0.40, 0.86, 93)
    labels = np.array([1] * 93 + [0])
    threshold = sensitivity_threshold(labels, np.append(melanomas, 0.1), np.arange(94).astype(object), target=0.95)
    assert threshold == pytest.approx(melanomas[:2].mean())


def test_a_lesion_is_caught_only_by_all_of_its_images() -> None:
    """Thirty lesions, two images each: the second image of one is low, and it alone sets the threshold."""
    probabilities = np.concatenate((np.full(60, 0.8), [0.1]))
    probabilities[1] = 0.2
    labels = np.array([1] * 60 + [0])
    lesions = np.append(np.repeat(np.arange(30), 2), 99).astype(object)
    assert sensitivity_threshold(labels, probabilities, lesions, target=0.9) == pytest.approx(0.15)
    assert lowest_of_each_lesion(probabilities[:4], lesions[:4]).tolist() == [0.2, 0.8]
    # As sixty lesions it would be one miss among sixty, which 0.9 allows.
    assert sensitivity_threshold(labels, probabilities, np.arange(61).astype(object), target=0.9) > 0.2


def test_too_few_melanoma_lesions_are_refused_with_the_number_needed() -> None:
    labels, lesions = np.array([1] * 80 + [0]), np.append(np.repeat(np.arange(40), 2), 99).astype(object)
    probabilities = np.linspace(0.9, 0.1, 81)
    with pytest.raises(TooFewLesionsError, match=r"40 melanoma lesions are too few .* 0\.95.* at least 59"):
        sensitivity_threshold(labels, probabilities, lesions, target=0.95)
    with pytest.raises(TooFewLesionsError):
        sensitivity_band(labels, probabilities, lesions, target=0.95, seed=1)


@pytest.mark.parametrize("target", [0.0, 1.0, 1.5, float("nan")])
def test_a_sensitivity_that_cannot_be_proven_is_refused(target: float) -> None:
    with pytest.raises(ValueError, match="above 0 and below 1"):
        sensitivity_threshold(LABELS, PROBABILITIES, np.arange(4).astype(object), target=target)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_alone_proves_nothing(label: int) -> None:
    with pytest.raises(ValueError, match="Both classes are needed"):
        sensitivity_threshold(np.full(4, label), PROBABILITIES, np.arange(4).astype(object), target=0.5)


@st.composite
def tied_lesions(draw: st.DrawFn) -> tuple[Labels, Floats, Lesions]:
    """Five to forty melanoma lesions and some nevi, one to three images each, on few distinct probabilities."""
    sizes = draw(st.lists(st.integers(1, 3), min_size=5, max_size=40))
    nevi = draw(st.lists(st.integers(1, 3), min_size=1, max_size=10))
    lesions = np.repeat(np.arange(len(sizes) + len(nevi)), sizes + nevi)
    labels = (lesions < len(sizes)).astype(int)
    steps = draw(st.lists(st.integers(1, 12), min_size=len(lesions), max_size=len(lesions)))
    return labels, np.array(steps) / 13, lesions.astype(object)


@settings(max_examples=60, deadline=None)
@given(data=tied_lesions(), target=st.sampled_from([0.3, 0.5, 0.8, 0.9]))
def test_it_is_the_highest_threshold_whose_bound_holds(data: tuple[Labels, Floats, Lesions], target: float) -> None:
    labels, probabilities, lesions = data
    lowest = lowest_of_each_lesion(probabilities[labels == 1], lesions[labels == 1])

    def proven(threshold: float) -> bool:
        return lower_bound(int((lowest >= threshold).sum()), len(lowest)) >= target

    candidates = [value for value in np.unique(probabilities) if proven(value)]
    if not candidates:
        with pytest.raises(TooFewLesionsError):
            sensitivity_threshold(labels, probabilities, lesions, target=target)
        return
    found = sensitivity_threshold(labels, probabilities, lesions, target=target)
    assert proven(found)
    # It calls the same images as the highest threshold on an image.
    assert np.array_equal(probabilities >= found, probabilities >= max(candidates))


def test_the_proven_sensitivity_is_kept_in_new_data() -> None:
    """The promise: in 95% of validation sets of 93 lesions, the true sensitivity at the threshold is at least 0.9."""
    chance = np.random.default_rng(8)
    kept = []
    for _ in range(200):
        melanomas, nevi = chance.normal(1.5, 1, 93), chance.normal(0, 1, 100)
        scores = 1 / (1 + np.exp(-np.concatenate((melanomas, nevi))))
        labels = np.repeat([1, 0], (93, 100))
        threshold = sensitivity_threshold(labels, scores, np.arange(193).astype(object), target=0.9)
        limit = np.log(threshold / (1 - threshold))
        # True sensitivity of a normal score of mean 1.5.
        kept.append(0.5 * (1 + math.erf((1.5 - limit) / math.sqrt(2))) >= 0.9)
    assert np.mean(kept) >= 0.93


def test_the_band_of_a_proven_sensitivity_has_a_width_when_misses_are_allowed() -> None:
    chance = np.random.default_rng(5)
    labels = np.repeat([0, 1], (200, 120))
    probabilities = np.clip(chance.normal(np.where(labels == 1, 0.6, 0.35), 0.15), 0.01, 0.99)
    lesions = np.arange(320).astype(object)
    band = sensitivity_band(labels, probabilities, lesions, target=0.85, seed=1)
    assert 0 < band < sensitivity_threshold(labels, probabilities, lesions, target=0.85)
    assert band == sensitivity_band(labels, probabilities, lesions, target=0.85, seed=1)
