"""What 8 bits may cost: worked numbers on either side of each limit."""

import numpy as np
import pytest

from trainer.quantisation import GREATEST_AUROC_LOSS, LEAST_AGREEMENT, QuantisationCost, cost_of
from worker.bundle import Calibration, PolicyThreshold

PLAIN = Calibration(method="platt", slope=1.0, intercept=0.0)
POLICIES = {
    "youden": PolicyThreshold(threshold=0.5, borderline_from=0.4, sensitivity=0.9, specificity=0.9),
    "sensitivity:0.95": PolicyThreshold(threshold=0.2, borderline_from=0.1, sensitivity=0.95, specificity=0.6),
}


def test_the_cost_is_counted_by_flag_and_policy() -> None:
    labels = np.array([1, 1, 0, 0, 0])
    before = np.array([0.9, 0.45, 0.45, 0.15, 0.05])
    # High risk to borderline under youden, low risk to borderline, and two that change no flag of it.
    after = np.array([0.49, 0.47, 0.41, 0.42, 0.05])
    cost = cost_of(labels, before, after, PLAIN, POLICIES)
    assert cost.agreement == {"youden": pytest.approx(3 / 5), "sensitivity:0.95": pytest.approx(4 / 5)}
    # Before: 5.5 of 6 pairs of a melanoma and a nevus in order, a tie counting half; after: all of them.
    assert cost.auroc_loss == pytest.approx(5.5 / 6 - 1)


def test_the_same_output_costs_nothing() -> None:
    labels, same = np.array([1, 0]), np.array([0.7, 0.3])
    assert cost_of(labels, same, same, PLAIN, POLICIES).faults == []


@pytest.mark.parametrize(
    ("loss", "agreement", "said"),
    [
        (GREATEST_AUROC_LOSS, LEAST_AGREEMENT, []),
        (-0.01, 1.0, []),
        (GREATEST_AUROC_LOSS + 1e-4, 1.0, ["the AUC falls by 0.0031"]),
        (0.0, LEAST_AGREEMENT - 1e-4, ["under youden 98.99% of the flags agree"]),
        (0.02, 0.9, ["the AUC falls", "under youden 90.00%"]),
    ],
)
def test_what_is_more_than_allowed_is_said(loss: float, agreement: float, said: list[str]) -> None:
    faults = QuantisationCost(auroc_loss=loss, agreement={"youden": agreement}).faults
    assert len(faults) == len(said)
    assert all(fault.startswith(words) for fault, words in zip(faults, said, strict=True))
