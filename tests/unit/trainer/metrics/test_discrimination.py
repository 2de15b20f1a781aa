"""AUROC, average precision and their kin: against scikit-learn, ties and weights included, and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from trainer.metrics.discrimination import (
    auroc,
    average_precision,
    precision_recall_points,
    roc_points,
    share,
    specificity_at_sensitivity,
)


@st.composite
def weighted(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels of both classes, scores with many ties, and how often each image was drawn; both classes are."""
    rest = draw(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 9), st.integers(0, 3)), max_size=40))
    images = [(0, draw(st.integers(0, 9)), 1), (1, draw(st.integers(0, 9)), 2), *rest]
    labels, steps, weights = np.array(images).T
    return labels, steps / 9, weights.astype(float)


@settings(max_examples=80, deadline=None)
@given(weighted())
def test_areas_equal_scikit_learns(data: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    labels, scores, weights = data
    both = np.stack((np.ones(len(labels)), weights))
    for row, drawn in enumerate(both):
        assert auroc(labels, scores, both)[row] == pytest.approx(
            roc_auc_score(labels, scores, sample_weight=drawn), abs=1e-9
        )
        assert average_precision(labels, scores, both)[row] == pytest.approx(
            average_precision_score(labels, scores, sample_weight=drawn), abs=1e-9
        )


@settings(max_examples=100, deadline=None)
@given(data=weighted(), sensitivity=st.sampled_from([0.5, 0.8, 0.95, 1.0]))
def test_specificity_at_a_sensitivity_is_the_best_of_the_roc_curve(
    data: tuple[np.ndarray, np.ndarray, np.ndarray], sensitivity: float
) -> None:
    labels, scores, weights = data
    false_positive_rate, true_positive_rate, _ = roc_curve(
        labels, scores, sample_weight=weights, drop_intermediate=False
    )
    best = 1 - false_positive_rate[true_positive_rate >= sensitivity - 1e-9].min()
    assert specificity_at_sensitivity(labels, scores, weights[None], sensitivity=sensitivity)[0] == pytest.approx(best)


def test_auroc_by_hand() -> None:
    # Pairs: 0.8 beats both nevi, 0.4 ties with one and beats the other: (2 + 1.5) / 4.
    assert auroc(np.array([1, 1, 0, 0]), np.array([0.8, 0.4, 0.4, 0.1]), np.ones((1, 4)))[0] == 3.5 / 4


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_alone_has_no_area(label: int) -> None:
    labels, scores, weights = np.full(4, label), np.linspace(0.1, 0.9, 4), np.ones((2, 4))
    assert np.isnan(auroc(labels, scores, weights)).all()
    assert np.isnan(specificity_at_sensitivity(labels, scores, weights, sensitivity=0.95)).all()
    assert np.isnan(average_precision(labels, scores, weights)).all() == (label == 0)


def test_a_share_by_hand() -> None:
    flags, among = np.array([True, False, True, True]), np.array([True, True, True, False])
    found = share(flags, among, np.array([[1.0, 1, 1, 1], [0, 3, 1, 9], [0, 0, 0, 5]]))
    assert found[:2].tolist() == pytest.approx([2 / 3, 1 / 4])
    assert np.isnan(found[2])


def test_the_curves_are_scikit_learns() -> None:
    chance = np.random.default_rng(4)
    labels = np.repeat([0, 1], (60, 30))
    scores = np.round(chance.normal(labels, 1), 1)
    roc = roc_points(labels, scores)
    false_positive_rate, true_positive_rate, _ = roc_curve(labels, scores, drop_intermediate=False)
    assert np.allclose(roc.false_positive_rate, false_positive_rate)
    assert np.allclose(roc.sensitivity, true_positive_rate)
    points = precision_recall_points(labels, scores)
    precision, recall, _ = precision_recall_curve(labels, scores)
    assert np.allclose(points.precision, precision[:-1][::-1])
    assert np.allclose(points.recall, recall[:-1][::-1])
