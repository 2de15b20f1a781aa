"""Predictive values, net benefit, coverage and risk: numbers worked by hand, and what must hold for all."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.metrics.coverage import certainty, coverage_risk
from trainer.metrics.decision_curve import THRESHOLD_PROBABILITIES, net_benefit
from trainer.metrics.prevalence import PREVALENCES, predictive_values, range_of_predictive_values


def test_predictive_values_by_hand() -> None:
    # Of 1,000 images 10 are melanomas: 9 flagged. Of 990 nevi 198 are flagged and 792 are not.
    ppv, npv, referred = predictive_values(np.array(0.9), np.array(0.8), 0.01)
    assert ppv == pytest.approx(9 / 207)
    assert npv == pytest.approx(792 / 793)
    assert referred == pytest.approx(0.207)


def test_the_prevalences_are_those_of_the_report() -> None:
    assert PREVALENCES == (0.01, 0.02, 0.05, 0.14)


def test_without_a_flag_there_is_no_ppv_and_with_only_flags_no_npv() -> None:
    ppv, npv, referred = predictive_values(np.array([0.0, 1.0]), np.array([1.0, 0.0]), 0.05)
    assert np.isnan(ppv[0])
    assert npv[0] == pytest.approx(0.95)
    assert np.isnan(npv[1])
    assert ppv[1] == pytest.approx(0.05)
    assert referred.tolist() == [0, 1]


@settings(max_examples=100, deadline=None)
@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.floats(0.005, 0.5))
def test_bayes_on_counted_images(sensitivity: float, specificity: float, prevalence: float) -> None:
    ppv, npv, referred = predictive_values(np.array(sensitivity), np.array(specificity), prevalence)
    assert ppv * referred == pytest.approx(sensitivity * prevalence)
    assert npv * (1 - referred) == pytest.approx(specificity * (1 - prevalence))


def test_what_two_intervals_allow_by_hand() -> None:
    ppv, npv, referred = range_of_predictive_values((0.95, 1.0), (0.7, 0.8), 0.02)
    assert ppv == pytest.approx((0.019 / (0.019 + 0.294), 0.02 / (0.02 + 0.196)))
    assert npv == pytest.approx((0.686 / 0.687, 1))
    assert referred == pytest.approx((0.019 + 0.196, 0.02 + 0.294))


@settings(max_examples=100, deadline=None)
@given(st.floats(0.01, 0.98), st.floats(0.01, 0.98), st.floats(0, 1), st.floats(0, 1), st.floats(0.005, 0.5))
def test_nothing_between_two_ends_lies_outside_of_their_range(
    low: float, spared: float, x: float, y: float, prevalence: float
) -> None:
    sensitivity, specificity = low + x * (0.99 - low), spared + y * (0.99 - spared)
    found = predictive_values(np.array(sensitivity), np.array(specificity), prevalence)
    for value, (least, greatest) in zip(
        found, range_of_predictive_values((low, 0.99), (spared, 0.99), prevalence), strict=True
    ):
        assert least - 1e-12 <= value <= greatest + 1e-12


def test_net_benefit_by_hand() -> None:
    # As in the docstring: 100 images, 20 melanomas, 18 of them and 30 nevi referred, at 10%.
    labels = np.array([1] * 20 + [0] * 80)
    flagged = np.array([True] * 18 + [False] * 2 + [True] * 30 + [False] * 50)
    ones = np.ones((1, 100))
    assert net_benefit(labels, flagged, 0.1, ones)[0] == pytest.approx(0.18 - 0.30 / 9)
    assert net_benefit(labels, np.ones(100, bool), 0.1, ones)[0] == pytest.approx(0.20 - 0.80 / 9)
    assert net_benefit(labels, np.zeros(100, bool), 0.1, ones)[0] == 0


def test_referring_everyone_is_worth_nothing_where_the_threshold_is_the_prevalence() -> None:
    labels = np.array([1] * 20 + [0] * 80)
    assert net_benefit(labels, np.ones(100, bool), 0.2, np.ones((1, 100)))[0] == pytest.approx(0, abs=1e-12)
    assert THRESHOLD_PROBABILITIES[0] == 0.01
    assert THRESHOLD_PROBABILITIES[-1] == 0.5


def test_certainty_is_the_distance_from_the_threshold_in_log_odds() -> None:
    found = certainty(np.array([0.5, 0.2, 0.8]), 0.2)
    assert found.tolist() == pytest.approx([np.log(4), 0, np.log(16)])


def test_coverage_and_risk_by_hand() -> None:
    # Nearest to the threshold of 0.5 are 0.55 (a nevus, flagged) and 0.4 (a melanoma, missed).
    labels = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 1])
    probabilities = np.array([0.99, 0.95, 0.9, 0.01, 0.02, 0.03, 0.05, 0.1, 0.55, 0.4])
    points = {point.coverage: point for point in coverage_risk(labels, probabilities, 0.5)}
    everyone, most = points[1.0], points[0.8]
    assert (everyone.images, everyone.risk, everyone.missed) == (10, 0.2, 1)
    assert (everyone.sensitivity, everyone.specificity) == (0.75, pytest.approx(5 / 6))
    assert (most.images, most.risk, most.missed) == (8, 0, 0)
    assert (most.sensitivity, most.specificity) == (1, 1)


def test_without_melanomas_among_the_covered_there_is_no_sensitivity() -> None:
    labels, probabilities = np.array([0] * 9 + [1]), np.array([0.01] * 9 + [0.5])
    points = coverage_risk(labels, probabilities, 0.5)
    assert np.isnan(points[-1].sensitivity)
    assert points[0].sensitivity == 1
