"""Platt scaling and measures of calibration: on data whose truth is known, and against numbers worked by hand."""

import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, roc_auc_score

from trainer.thresholds.calibration import (
    brier,
    calibration_intercept,
    calibration_slope,
    equal_bins,
    expected_calibration_error,
    fit_platt,
    reliability,
)
from worker.inference.bundle import Calibration


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (1.8, -1.5), (0.5, 0.7)])
def test_a_known_slope_and_intercept_are_found_again(slope: float, intercept: float) -> None:
    rng = np.random.default_rng(17)
    odds = rng.normal(0, 2, 20_000)
    labels = (rng.random(odds.size) < sigmoid(slope * odds + intercept)).astype(int)
    found = fit_platt(labels, sigmoid(odds))
    # Standard errors are below 0.03 at this size.
    assert found.method == "platt"
    assert found.slope == pytest.approx(slope, abs=0.09)
    assert found.intercept == pytest.approx(intercept, abs=0.09)


def test_balanced_training_is_brought_back_to_the_share_of_melanomas() -> None:
    rng = np.random.default_rng(3)
    labels = (rng.random(4000) < 0.14).astype(int)
    # A network trained on equal shares: overstates the rare class.
    raw = sigmoid(rng.normal(np.where(labels == 1, 1.5, -1.0), 1.2))
    assert raw.mean() > 0.3
    calibrated = fit_platt(labels, raw).apply(raw)
    # The first-order condition of maximum likelihood.
    assert calibrated.mean() == pytest.approx(labels.mean(), abs=1e-3)
    assert np.array_equal(np.argsort(calibrated), np.argsort(raw))
    assert roc_auc_score(labels, calibrated) == roc_auc_score(labels, raw)


def test_perfectly_separated_classes_have_a_finite_fit() -> None:
    labels = np.repeat([0, 1], 20)
    found = fit_platt(labels, np.concatenate((np.linspace(0.05, 0.3, 20), np.linspace(0.6, 0.95, 20))))
    assert 0 < found.slope < 1e4
    assert math.isfinite(found.intercept)


def test_outputs_of_exactly_zero_and_one_are_taken() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1])
    raw = np.array([0.0, 0.2, 0.9, 0.1, 0.8, 1.0])
    found = fit_platt(labels, raw)
    assert np.isfinite(found.apply(raw)).all()


def test_a_model_that_ranks_melanomas_below_nevi_is_refused() -> None:
    labels = np.repeat([0, 1], 50)
    raw = np.concatenate((np.linspace(0.4, 0.9, 50), np.linspace(0.1, 0.6, 50)))
    with pytest.raises(ValueError, match=r"ranks melanomas below nevi \(Platt slope -\d"):
        fit_platt(labels, raw)


def test_one_class_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="class"):
        fit_platt(np.ones(4, int), np.array([0.1, 0.2, 0.3, 0.4]))


def test_apply_against_numbers_worked_by_hand() -> None:
    calibration = Calibration(method="platt", slope=2.0, intercept=-1.0)
    # logit(0.8) = ln 4 = 1.386294; 2 * 1.386294 - 1 = 1.772589; 1 / (1 + e^-1.772589) = 16 / (16 + e) = 0.854773
    assert calibration.apply(np.array([0.8]))[0] == pytest.approx(16 / (16 + math.e), abs=1e-12)
    # logit(0.5) = 0, so 1 / (1 + e) = 0.268941
    assert calibration.apply(np.array([[0.5]]))[0, 0] == pytest.approx(0.2689414, abs=1e-7)


def test_apply_with_slope_one_and_no_intercept_changes_nothing() -> None:
    raw = np.linspace(0.001, 0.999, 99).reshape(3, 33)
    assert np.allclose(Calibration(method="platt", slope=1, intercept=0).apply(raw), raw, atol=1e-12)


def test_apply_stays_inside_zero_and_one() -> None:
    applied = Calibration(method="platt", slope=1, intercept=0).apply(np.array([0.0, 1.0]))
    assert 0 < applied[0] < 1e-6
    assert 1 - 1e-6 < applied[1] < 1


def ones(count: int) -> np.ndarray:
    return np.ones((1, count))


def made_up(slope: float, intercept: float, count: int = 5000) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities whose log-odds are off by a known slope and intercept."""
    chance = np.random.default_rng(23)
    odds = chance.normal(-1, 1.5, count)
    labels = (chance.random(count) < sigmoid(slope * odds + intercept)).astype(int)
    return labels, sigmoid(odds)


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (1.7, 0.4), (0.6, -0.8)])
def test_the_calibration_slope_is_that_of_a_logistic_regression(slope: float, intercept: float) -> None:
    labels, probabilities = made_up(slope, intercept)
    odds = np.log(probabilities / (1 - probabilities))[:, None]
    fitted = LogisticRegression(C=1e10, tol=1e-10).fit(odds, labels)
    found = calibration_slope(labels, probabilities, ones(len(labels)))
    assert found.shape == (1,)
    assert found[0] == pytest.approx(fitted.coef_[0, 0], abs=1e-4)
    assert found[0] == pytest.approx(slope, abs=0.12)


def test_weights_count_images_as_often_as_they_say() -> None:
    labels, probabilities = made_up(1.3, 0.2, count=300)
    weights = np.random.default_rng(1).integers(0, 4, (3, 300)).astype(float)
    for measure in (brier, calibration_slope, calibration_intercept):
        found = measure(labels, probabilities, weights)
        for row, drawn in enumerate(weights):
            rows = np.repeat(np.arange(300), drawn.astype(int))
            assert found[row] == pytest.approx(measure(labels[rows], probabilities[rows], ones(len(rows)))[0], abs=1e-8)


def test_calibration_in_the_large_brings_the_mean_to_the_observed_share() -> None:
    labels, probabilities = made_up(1.0, 0.7)
    (shift,) = calibration_intercept(labels, probabilities, ones(len(labels)))
    moved = sigmoid(np.log(probabilities / (1 - probabilities)) + shift)
    assert moved.mean() == pytest.approx(labels.mean(), abs=1e-9)
    assert shift == pytest.approx(0.7, abs=0.12)


def test_measures_that_do_not_exist_are_not_numbers() -> None:
    probabilities = np.array([0.1, 0.2, 0.8, 0.9])
    separated = np.array([0, 0, 1, 1])
    assert np.isnan(calibration_slope(separated, probabilities, ones(4)))[0]
    alone = np.ones(4, int)
    assert np.isnan(calibration_slope(alone, probabilities, ones(4)))[0]
    assert np.isnan(calibration_intercept(alone, probabilities, ones(4)))[0]


def test_brier_is_scikit_learns() -> None:
    labels, probabilities = made_up(1.0, 0.0, count=200)
    assert brier(labels, probabilities, ones(200))[0] == pytest.approx(brier_score_loss(labels, probabilities))


def test_the_calibration_error_by_hand() -> None:
    # As in the docstring: half of the images off by 0.1 one way, half by 0.1 the other.
    probabilities = np.repeat([0.2, 0.9], 10)
    labels = np.array([1] * 3 + [0] * 7 + [1] * 8 + [0] * 2)
    assert expected_calibration_error(labels, probabilities, ones(20), bins=2)[0] == pytest.approx(0.1)
    bins = reliability(labels, probabilities, bins=2)
    assert [(part.images, part.predicted, part.observed) for part in bins] == [
        (10, pytest.approx(0.2), 0.3),
        (10, pytest.approx(0.9), 0.8),
    ]


def test_groups_are_of_equal_size_and_ties_stay_together() -> None:
    assert np.bincount(equal_bins(np.linspace(0.01, 0.99, 50))).tolist() == [5] * 10
    tied = equal_bins(np.array([0.1] * 40 + [0.5] * 10))
    assert len(set(tied[:40])) == 1
    assert tied.max() == 1


def test_perfect_probabilities_have_a_small_error_and_a_slope_of_one() -> None:
    labels, probabilities = made_up(1.0, 0.0, count=20_000)
    assert expected_calibration_error(labels, probabilities, ones(20_000))[0] < 0.015
    assert calibration_slope(labels, probabilities, ones(20_000))[0] == pytest.approx(1, abs=0.05)
