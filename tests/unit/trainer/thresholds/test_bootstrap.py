"""Lesion-clustered intervals."""

from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import trainer.thresholds.bootstrap
from trainer.thresholds.bootstrap import Interval, LesionBootstrap, WeightedStatistic, lesion_resamples

Rows = npt.NDArray[np.intp]


#: For each lesion its class and its number of images; both classes occur.
LESIONS = st.tuples(
    st.lists(st.integers(1, 4), min_size=1, max_size=8), st.lists(st.integers(1, 4), min_size=1, max_size=8)
)


def mean_of(values: npt.NDArray[np.float64]) -> WeightedStatistic:
    return lambda weights: weights @ values / weights.sum(axis=1)


def columns(counts: tuple[list[int], list[int]], order: int) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.int64]]:
    """Lesion and label of each image, siblings scattered over the rows."""
    lesions = [(f"{label}-{number}", label) for label in (0, 1) for number in range(len(counts[label]))]
    images = [lesion for lesion, count in zip(lesions, [*counts[0], *counts[1]], strict=True) for _ in range(count)]
    shuffled = [images[row] for row in np.random.default_rng(order).permutation(len(images))]
    return np.array([name for name, _ in shuffled], object), np.array([label for _, label in shuffled])


@settings(max_examples=60, deadline=None)
@given(counts=LESIONS, seed=st.integers(0, 1000))
def test_lesions_stay_whole_and_each_class_keeps_its_number_of_lesions(
    counts: tuple[list[int], list[int]], seed: int
) -> None:
    lesions, labels = columns(counts, order=seed)
    images_of = Counter(lesions)
    for rows in lesion_resamples(lesions, labels, seed=seed, resamples=5):
        times = Counter(rows.tolist())
        drawn = {lesion: {times[row] for row in np.flatnonzero(lesions == lesion)} for lesion in images_of}
        assert all(len(of_lesion) == 1 for of_lesion in drawn.values()), "siblings were drawn apart"
        for label in (0, 1):
            lesions_drawn = sum(
                of_lesion.copy().pop() for lesion, of_lesion in drawn.items() if lesion[0] == str(label)
            )
            assert lesions_drawn == len(counts[label])


def test_lesions_are_drawn_with_replacement_and_repeat_by_seed() -> None:
    lesions, labels = np.arange(30).astype(object), np.repeat([0, 1], (20, 10))
    first, again, other = (list(lesion_resamples(lesions, labels, seed=seed, resamples=3)) for seed in (1, 1, 2))
    assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])
    assert not np.array_equal(first[0], first[1])
    assert len(set(first[0].tolist())) < 30


def test_every_lesion_has_the_same_chance_whatever_its_number_of_images() -> None:
    lesions = np.array(["a", "b", "b", "b", "c", "c"], object)
    counts = Counter(
        lesion
        for rows in lesion_resamples(lesions, np.zeros(6, int), seed=0, resamples=3000)
        for lesion in lesions[rows]
    )
    drawn = [counts["a"] / 3000, counts["b"] / 9000, counts["c"] / 6000]
    assert np.allclose(drawn, 1, atol=0.06)


def test_the_interval_covers_the_estimate_on_all_rows() -> None:
    values = np.random.default_rng(0).random(200)
    lesions, labels = np.arange(200).astype(object), np.repeat([0, 1], 100)
    found = LesionBootstrap(lesions, labels, seed=4, resamples=400)(mean_of(values))
    assert np.isclose(found.value, values.mean())
    assert found.low < found.value < found.high
    # Theory: the mean of 200 uniform numbers has a standard error of 0.0204.
    assert 0.06 < found.high - found.low < 0.1


def test_identical_siblings_count_as_one_observation() -> None:
    """Four copies of each image add nothing, so the interval must not shrink; drawing images would halve it."""
    single = np.random.default_rng(1).random(60)
    labels = np.repeat([0, 1], 30)

    def width(copies: int, *, lesions: npt.NDArray[np.object_]) -> float:
        values = np.repeat(single, copies)
        found = LesionBootstrap(lesions, np.repeat(labels, copies), seed=9, resamples=600)(mean_of(values))
        return found.high - found.low

    alone = width(1, lesions=np.arange(60).astype(object))
    clustered = width(4, lesions=np.repeat(np.arange(60), 4).astype(object))
    naive = width(4, lesions=np.arange(240).astype(object))
    assert np.isclose(clustered, alone, rtol=1e-9)
    assert naive < 0.65 * clustered


def test_a_statistic_without_chance_has_an_interval_of_no_width() -> None:
    lesions, labels = np.array(["a", "a", "b", "c"], object), np.array([1, 1, 0, 0])
    # Stratified and of whole lesions: the one melanoma lesion is in every resample with both images.
    found = LesionBootstrap(lesions, labels, seed=0, resamples=50)(lambda weights: weights @ (labels == 1))
    assert (found.low, found.value, found.high) == (2, 2, 2)


def test_weights_and_rows_give_the_same_interval() -> None:
    chance = np.random.default_rng(2)
    lesions, labels = np.repeat(np.arange(40), 2).astype(object), np.repeat([0, 1], 40)
    values = chance.random(80)
    by_rows = [values[rows].mean() for rows in lesion_resamples(lesions, labels, seed=3, resamples=300)]
    found = LesionBootstrap(lesions, labels, seed=3, resamples=300)(mean_of(values))
    assert np.allclose((found.low, found.high), np.percentile(by_rows, (2.5, 97.5)), atol=1e-12)


def test_a_large_set_is_computed_by_parts_with_the_same_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    lesions, labels = np.repeat(np.arange(40), 2).astype(object), np.repeat([0, 1], 40)
    values = np.random.default_rng(2).random(80)
    given: list[int] = []

    def watched(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        given.append(len(weights))
        return mean_of(values)(weights)

    def found() -> Interval:
        given.clear()
        return LesionBootstrap(lesions, labels, seed=3, resamples=300)(watched)

    whole, sizes = found(), [*given]
    monkeypatch.setattr(trainer.thresholds.bootstrap, "_WEIGHTS_AT_ONCE", 7 * 80)
    assert found() == whole
    assert (sizes, given) == ([1, 300], [1, *[7] * 42, 6])


def test_a_statistic_that_is_undefined_has_no_interval() -> None:
    bootstrap = LesionBootstrap(np.arange(4).astype(object), np.zeros(4, int), seed=1, resamples=10)
    found = bootstrap(lambda weights: np.full(len(weights), np.nan))
    assert np.isnan([found.value, found.low, found.high]).all()


def test_intervals_of_clustered_data_cover_the_truth_about_as_often_as_they_say() -> None:
    """Sixty lesions of two like images each; the true mean is 0. Drawing images would cover it in 83% only."""
    chance = np.random.default_rng(11)
    lesions, labels = np.repeat(np.arange(60), 2).astype(object), np.zeros(120, int)
    covered = []
    for trial in range(150):
        values = np.repeat(chance.normal(0, 1, 60), 2) + chance.normal(0, 0.1, 120)
        bootstrap = LesionBootstrap(lesions, labels, seed=trial, resamples=200)
        found = bootstrap(mean_of(values))
        covered.append(found.low <= 0 <= found.high)
    assert 0.88 <= np.mean(covered) <= 0.99
