"""What a run freezes on its validation images."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta

from trainer.thresholds.policies import SENSITIVITIES, choose_policies, fit_policies_on_validation
from trainer.thresholds.threshold import lesion_sensitivity


def validation(melanomas: int, nevi: int, seed: int = 3) -> pd.DataFrame:
    """One image a lesion, scores that overlap."""
    chance = np.random.default_rng(seed)
    labels = np.repeat([1, 0], (melanomas, nevi))
    odds = chance.normal(np.where(labels == 1, 1.5, -1.5), 1.2)
    return pd.DataFrame(
        {
            "lesion_id": [f"HAM_{number:04}" for number in range(len(labels))],
            "label": labels,
            "probability": 1 / (1 + np.exp(-odds)),
        }
    )


def test_a_run_with_enough_lesions_carries_every_policy(tmp_path: Path) -> None:
    validation(92, 300).to_csv(tmp_path / "validation.csv", index=False)
    calibration, policies = fit_policies_on_validation(tmp_path)
    thresholds = policies.thresholds
    assert list(thresholds) == ["youden", "sensitivity:0.95", "sensitivity:0.90", "sensitivity:0.85"]
    assert calibration.slope > 0
    # The higher the promise, the lower the threshold.
    promised = [thresholds[f"sensitivity:{target:.2f}"] for target in SENSITIVITIES]
    assert promised[0].threshold < promised[1].threshold < promised[2].threshold
    assert all(policy.borderline_threshold <= policy.threshold for policy in thresholds.values())
    assert promised[0].sensitivity == 1
    assert promised[1].sensitivity >= 88 / 92
    # What each policy proves goes into the bundle: 0, 4 and 7 misses of 92, and at least the promise.
    proven = [policy.by_lesion for policy in promised]
    assert [(each.caught, each.lesions) for each in proven if each] == [(92, 92), (88, 92), (85, 92)]
    for target, each in zip(SENSITIVITIES, proven, strict=True):
        assert each is not None
        assert each.lower_bound == pytest.approx(beta.ppf(0.05, each.caught, each.lesions - each.caught + 1))
        assert each.lower_bound >= target


def test_a_lesion_is_caught_by_every_image_or_not_at_all() -> None:
    labels, lesions = np.array([1, 1, 1, 0]), np.array(["a", "a", "b", "c"], object)
    found = lesion_sensitivity(labels, np.array([0.9, 0.3, 0.8, 0.1]), lesions, 0.5)
    assert (found.caught, found.lesions) == (1, 2)
    assert found.lower_bound == pytest.approx(1 - 0.95**0.5)


def test_a_promise_that_validation_cannot_hold_is_left_out_and_said(tmp_path: Path) -> None:
    validation(40, 100).to_csv(tmp_path / "validation.csv", index=False)
    _, policies = fit_policies_on_validation(tmp_path)
    assert list(policies.thresholds) == ["youden", "sensitivity:0.90", "sensitivity:0.85"]
    assert list(policies.refused) == ["sensitivity:0.95"]
    assert "40 melanoma lesions" in policies.refused["sensitivity:0.95"]


def test_one_class_alone_is_refused() -> None:
    rows = validation(30, 0)
    with pytest.raises(ValueError, match="Both classes are needed"):
        choose_policies(rows["label"].to_numpy(), rows["probability"].to_numpy(), rows["lesion_id"].to_numpy(object))


def test_siblings_do_not_add_lesions() -> None:
    rows = validation(40, 100)
    doubled = pd.concat([rows, rows])
    policies = choose_policies(
        doubled["label"].to_numpy(), doubled["probability"].to_numpy(), doubled["lesion_id"].to_numpy(object)
    )
    assert "sensitivity:0.95" in policies.refused
