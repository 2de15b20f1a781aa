"""What a precision costs: worked cases on either side of each limit."""

import numpy as np
import pandas as pd
import pytest

from trainer.metrics.precision_cost import MAX_AUROC_LOSS, MAX_SENSITIVITY_LOSS, compare_precisions, find_faults
from trainer.thresholds.policies import fit_policies
from worker.inference.bundle import PolicyThreshold, PrecisionCost
from worker.inference.metrics import Estimate


def predictions(count: int = 400, seed: int = 2) -> tuple[pd.DataFrame, dict[str, PolicyThreshold]]:
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % 4 == 0).astype(np.int64)
    raw = 1 / (1 + np.exp(-rng.normal(2.0 * labels - 1, 1)))
    rows = pd.DataFrame({"label": labels, "probability": raw, "lesion_id": [f"L{number}" for number in range(count)]})
    policies = fit_policies(labels, raw, rows["lesion_id"].to_numpy(object))[1]
    return rows, policies.thresholds


def test_the_same_output_costs_nothing() -> None:
    rows, thresholds = predictions()
    cost = compare_precisions(rows, rows["probability"].to_numpy(), thresholds)
    assert cost.auroc_difference.value == 0
    assert {found.value for found in cost.sensitivity_difference.values()} == {0}
    assert set(cost.sensitivity_difference) == set(thresholds)
    assert find_faults(cost) == []


def test_another_scale_costs_nothing_for_thresholds_are_chosen_anew() -> None:
    rows, thresholds = predictions()
    cost = compare_precisions(rows, 0.5 * rows["probability"].to_numpy() ** 2, thresholds)
    assert cost.auroc_difference.value == 0
    assert find_faults(cost) == []


def test_noise_costs_area_and_sensitivity() -> None:
    rows, thresholds = predictions()
    noisy = np.clip(rows["probability"].to_numpy() + np.random.default_rng(1).normal(0, 0.4, len(rows)), 0, 1)
    cost = compare_precisions(rows, noisy, thresholds)
    low, high = cost.auroc_difference.low, cost.auroc_difference.high
    assert low is not None
    assert high is not None
    assert low < cost.auroc_difference.or_nan < high < 0
    assert "the area under the ROC curve falls by" in find_faults(cost)[0]


def test_clinics_weigh_the_same() -> None:
    """A precision that ruins the smaller clinic costs as much as one that ruins the larger."""
    rows, thresholds = predictions(1000)
    small = np.arange(1000) < 100
    rows["fold"] = np.where(small, "source:a", "source:b")
    losses = []
    for ruined in (small, ~small):
        outputs = rows["probability"].to_numpy().copy()
        outputs[ruined] = np.random.default_rng(3).permutation(outputs[ruined])
        losses.append(-compare_precisions(rows, outputs, thresholds).auroc_difference.or_nan)
    assert losses[0] > 0.05
    assert losses[0] == pytest.approx(losses[1], rel=0.5)


@pytest.mark.parametrize(
    ("area", "sensitivity", "said"),
    [
        (-MAX_AUROC_LOSS, -MAX_SENSITIVITY_LOSS, []),
        (0.01, 0.02, []),
        (-MAX_AUROC_LOSS - 1e-4, 0.0, ["the area under the ROC curve falls by 0.0031"]),
        (0.0, -MAX_SENSITIVITY_LOSS - 1e-4, ["at the specificity of youden the sensitivity falls by 0.0101"]),
        (None, 0.0, ["no area under the ROC curve"]),
    ],
)
def test_what_is_more_than_allowed_is_said(area: float | None, sensitivity: float, said: list[str]) -> None:
    cost = PrecisionCost(
        images=9,
        auroc_difference=Estimate(value=area),
        sensitivity_difference={"youden": Estimate(value=sensitivity)},
    )
    faults = find_faults(cost)
    assert len(faults) == len(said)
    assert all(fault.startswith(words) for fault, words in zip(faults, said, strict=True))
