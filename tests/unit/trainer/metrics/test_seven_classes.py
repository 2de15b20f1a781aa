"""Balanced accuracy and each diagnosis against the others: worked numbers, and scikit-learn's."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, roc_auc_score

from trainer.data.diagnoses import DIAGNOSES
from trainer.metrics.seven_classes import describe_classes, probability_columns


def images(truth: list[str], probabilities: np.ndarray) -> pd.DataFrame:
    rows = pd.DataFrame({"dx": truth, "lesion_id": [f"HAM_{number}" for number in range(len(truth))]})
    return rows.assign(**dict(zip(probability_columns(), probabilities.T, strict=True)))


def test_a_worked_example() -> None:
    mel, nv = DIAGNOSES.index("mel"), DIAGNOSES.index("nv")
    said = np.full((4, len(DIAGNOSES)), 0.01)
    said[0, mel] = said[1, nv] = said[2, nv] = said[3, nv] = 0.9
    found = describe_classes(images(["mel", "mel", "nv", "nv"], said), resamples=20)
    # One of two melanomas, two of two nevi; the diagnoses without an image do not count.
    assert found.balanced_accuracy.value == pytest.approx(0.75)
    assert [entry.diagnosis for entry in found.diagnoses] == ["mel", "nv"]
    assert [entry.sensitivity.value for entry in found.diagnoses] == [0.5, 1.0]
    assert found.confusion[mel][nv] == 1
    assert sum(map(sum, found.confusion)) == 4


def test_the_figures_are_those_of_scikit_learn() -> None:
    chance = np.random.default_rng(5)
    truth = [DIAGNOSES[number] for number in chance.integers(0, len(DIAGNOSES), 300)]
    probabilities = chance.dirichlet(np.ones(len(DIAGNOSES)), 300)
    probabilities[np.arange(300), [DIAGNOSES.index(dx) for dx in truth]] += 0.3
    found = describe_classes(images(truth, probabilities), resamples=50)
    said = [DIAGNOSES[number] for number in probabilities.argmax(axis=1)]
    assert found.balanced_accuracy.value == pytest.approx(balanced_accuracy_score(truth, said))
    assert found.balanced_accuracy.low < found.balanced_accuracy.value < found.balanced_accuracy.high
    assert np.array_equal(found.confusion, confusion_matrix(truth, said, labels=list(DIAGNOSES)))
    for entry in found.diagnoses:
        column = probabilities[:, DIAGNOSES.index(entry.diagnosis)]
        expected = roc_auc_score([dx == entry.diagnosis for dx in truth], column)
        assert entry.auroc.value == pytest.approx(expected)
