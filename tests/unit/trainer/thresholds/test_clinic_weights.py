"""Thresholds and calibration on a mixture of clinics: each weighs the same, however many images it gave."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.thresholds.calibration import fit_platt
from trainer.thresholds.clinic_weights import PREVALENCE, at_prevalence, clinic_weights, effective_count
from trainer.thresholds.policies import calibrate, fit_policies
from trainer.thresholds.threshold import (
    lesion_sensitivity,
    lower_bound,
    operating_point,
    sensitivity_band,
    sensitivity_threshold,
    youden_threshold,
)


def clinics(sizes: dict[str, tuple[int, int]], seed: int = 1, shift: float = 0.0) -> tuple[np.ndarray, ...]:
    """Labels, outputs, lesions and clinics; the second clinic's outputs are shifted."""
    rng = np.random.default_rng(seed)
    labels, raw, names = [], [], []
    for number, (name, (melanomas, nevi)) in enumerate(sizes.items()):
        label = np.repeat([1, 0], [melanomas, nevi])
        odds = rng.normal(2.0 * label - 1 + shift * number, 1)
        labels.append(label)
        raw.append(1 / (1 + np.exp(-odds)))
        names += [name] * len(label)
    lesions = np.array([f"L{number}" for number in range(len(names))], object)
    return np.concatenate(labels), np.concatenate(raw), lesions, np.array(names, object)


@given(sizes=st.lists(st.tuples(st.integers(1, 50), st.integers(0, 50)), min_size=1, max_size=4))
def test_each_clinic_weighs_the_same_within_a_class(sizes: list[tuple[int, int]]) -> None:
    labels, _, _, names = clinics({f"c{number}": size for number, size in enumerate(sizes)})
    weights = clinic_weights(labels, names)
    for label in (0, 1):
        of_class = labels == label
        sums = [weights[of_class & (names == name)].sum() for name in set(names[of_class])]
        assert np.allclose(sums, sums[:1])
        assert weights[of_class].sum() == pytest.approx(of_class.sum())
    if 0 < labels.sum() < len(labels):
        scaled = at_prevalence(labels, weights, 0.2)
        assert scaled[labels == 1].sum() / scaled.sum() == pytest.approx(0.2)
        assert scaled.sum() == pytest.approx(len(labels))


def test_without_clinics_or_with_one_nothing_changes() -> None:
    labels, raw, lesions, names = clinics({"a": (150, 400)})
    assert fit_policies(labels, raw, lesions)[1] == fit_policies(labels, raw, lesions, None)[1]
    assert youden_threshold(labels, raw) == youden_threshold(labels, raw, names)
    for target in (0.85, 0.95):
        assert sensitivity_threshold(labels, raw, lesions, target=target) == sensitivity_threshold(
            labels, raw, lesions, target=target, clinics=names
        )
        assert sensitivity_band(labels, raw, lesions, target=target, seed=3) == sensitivity_band(
            labels, raw, lesions, target=target, seed=3, clinics=names
        )


def test_copies_of_a_clinic_do_not_move_the_threshold() -> None:
    """A clinic that sent ten times as many images of the same kind decides no more than before."""
    labels, raw, lesions, names = clinics({"a": (80, 200), "b": (80, 200)}, shift=-1.5)
    often = np.concatenate([np.arange(len(labels)), *[np.flatnonzero(names == "b")] * 9])
    many = np.array([f"L{number}" for number in range(len(often))], object)
    assert youden_threshold(labels[often], raw[often], names[often]) == pytest.approx(
        youden_threshold(labels, raw, names)
    )
    assert youden_threshold(labels[often], raw[often]) < youden_threshold(labels, raw, names)
    before, after = calibrate(labels, raw, names), calibrate(labels[often], raw[often], names[often])
    # Platt moves labels towards each other, less with more images.
    assert after.slope == pytest.approx(before.slope, rel=0.05)
    assert after.intercept == pytest.approx(before.intercept, abs=0.06)
    point = operating_point(labels[often], raw[often], 0.5, names[often])
    assert point.sensitivity == pytest.approx(operating_point(labels, raw, 0.5, names).sensitivity)
    assert len(lesions) < len(many)


def test_probabilities_are_calibrated_at_the_stated_prevalence() -> None:
    labels, raw, _, names = clinics({"a": (900, 300), "b": (100, 700)}, seed=3)
    calibrated = calibrate(labels, raw, names).apply(raw)
    weights = at_prevalence(labels, clinic_weights(labels, names), PREVALENCE)
    assert np.average(calibrated, weights=weights) == pytest.approx(PREVALENCE, abs=0.003)


def test_a_calibration_with_equal_weights_is_that_without() -> None:
    labels, raw, _, _ = clinics({"a": (50, 90)})
    weighted, plain = fit_platt(labels, raw, np.ones(len(labels))), fit_platt(labels, raw)
    assert weighted.slope == pytest.approx(plain.slope)


@settings(deadline=None, max_examples=30)
@given(first=st.integers(60, 200), second=st.integers(60, 200), seed=st.integers(0, 9))
def test_a_proven_sensitivity_is_the_bound_of_the_weighted_lesions(first: int, second: int, seed: int) -> None:
    """The bound of Korn and Graubard: that of Clopper and Pearson with the effective number of lesions."""
    labels, raw, lesions, names = clinics({"a": (first, 100), "b": (second, 100)}, seed, shift=1.0)
    for target in (0.85, 0.90):
        threshold = sensitivity_threshold(labels, raw, lesions, target=target, clinics=names)
        found = lesion_sensitivity(labels, raw, lesions, threshold, names)
        assert found.lower_bound >= target
        melanoma = labels == 1
        weights = clinic_weights(labels[melanoma], names[melanoma])
        share, count = np.average(raw[melanoma] >= threshold, weights=weights), effective_count(weights)
        assert found.lower_bound == pytest.approx(lower_bound(share * count, count))
        # The next higher threshold proves less.
        above = np.sort(raw[melanoma & (raw >= threshold)])[1]
        assert lesion_sensitivity(labels, raw, lesions, float(above), names).lower_bound < target
