"""The figures of one set of images, its groups, and the melanomas that it misses."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from trainer.metrics.assess import assess, by_lesion
from trainer.metrics.figures import Assessment
from trainer.metrics.missed import missed_melanomas
from trainer.metrics.subgroups import UNKNOWN, age_band, describe, group_columns
from worker.inference.bundle import PolicyThreshold
from worker.inference.metrics import ClassCounts, Estimate

POLICIES = {
    "youden": PolicyThreshold(threshold=0.4, borderline_threshold=0.3, sensitivity=0.9, specificity=0.8),
    "sensitivity:0.90": PolicyThreshold(threshold=0.2, borderline_threshold=0.1, sensitivity=0.95, specificity=0.6),
}


def scored(seed: int = 1) -> pd.DataFrame:
    """60 melanoma lesions of two images and 120 nevi of one."""
    chance = np.random.default_rng(seed)
    lesions = [f"M{number:03}" for number in range(60) for _ in range(2)] + [f"N{number:03}" for number in range(120)]
    labels = np.repeat([1, 0], 120)
    raw = 1 / (1 + np.exp(-chance.normal(np.where(labels == 1, 1.2, -1.2), 1.2)))
    return pd.DataFrame(
        {
            "image_id": [f"ISIC_{number:04}" for number in range(240)],
            "lesion_id": lesions,
            "label": labels,
            "raw_probability": raw,
            "probability": raw**1.5,
            "age": [25.0, 45.0, 60.0, np.nan] * 60,
            "sex": ["male", "female"] * 120,
            "localization": ["back"] * 200 + ["face"] * 40,
            "dataset": ["rosendahl", "vidir_modern", "vidir_molemax"] * 80,
            "dx_type": ["histo"] * 150 + ["follow_up"] * 90,
            "ita": [60.0, 45.0, 20.0, np.nan] * 60,
        }
    )


@pytest.fixture(scope="module")
def found() -> Assessment:
    return assess(scored(), POLICIES, resamples=60)


def test_figures_by_image_and_by_lesion(found: Assessment) -> None:
    images = scored()
    lesions = by_lesion(images)
    assert found.counts.images == ClassCounts(melanoma=120, nevus=120)
    assert found.counts.lesions == ClassCounts(melanoma=60, nevus=120)
    assert found.images.auroc.value == pytest.approx(roc_auc_score(images["label"], images["probability"]))
    assert found.lesions.auroc.value == pytest.approx(roc_auc_score(lesions["label"], lesions["highest"]))
    melanomas = lesions[lesions["label"] == 1]
    at = found.lesions.policies["youden"]
    assert at.sensitivity.value == pytest.approx((melanomas["highest"] >= 0.4).mean())
    assert at.sensitivity_every_image.value == pytest.approx((melanomas["lowest"] >= 0.4).mean())
    assert at.sensitivity_every_image.value < at.sensitivity.value


def test_an_estimate_lies_in_its_interval(found: Assessment) -> None:
    for level in ("images", "lesions"):
        for name in ("auroc", "auprc", "specificity_at_95_sensitivity"):
            estimate = getattr(getattr(found, level), name)
            assert estimate.low <= estimate.value <= estimate.high


def test_predictive_values_follow_from_the_operating_point(found: Assessment) -> None:
    at = found.images.policies["youden"]
    caught = at.sensitivity.value * 0.02
    alarms = (1 - at.specificity.value) * 0.98
    (entry,) = [each for each in found.prevalence["youden"] if each.prevalence == 0.02]
    assert entry.ppv.value == pytest.approx(caught / (caught + alarms))
    assert entry.referred.value == pytest.approx(caught + alarms)


def test_perfectly_separated_classes_claim_no_certainty() -> None:
    """Every resample would say an AUROC of 1, and an NPV of 1 with no melanoma missed."""
    images = scored()
    found = assess(images.assign(probability=np.where(images["label"] == 1, 0.9, 0.1)), POLICIES, resamples=20)
    assert found.images.auroc == Estimate(value=1)
    (entry,) = [each for each in found.prevalence["youden"] if each.prevalence == 0.02]
    # 60 melanoma and 120 nevus lesions without a fault: exact lower ends of the shares, carried over by Bayes.
    sensitivity, specificity = 0.025 ** (1 / 60), 0.025 ** (1 / 120)
    assert entry.npv.low == pytest.approx(specificity * 0.98 / (specificity * 0.98 + (1 - sensitivity) * 0.02))
    assert entry.ppv.low == pytest.approx(sensitivity * 0.02 / (sensitivity * 0.02 + (1 - specificity) * 0.98))
    assert (entry.ppv.high, entry.npv.high) == (1, 1)


def test_the_decision_curve_compares_both_rules_on_the_same_images(found: Assessment) -> None:
    for row in found.decision_curve:
        assert row.gain.value == pytest.approx(row.model.value - max(row.refer_all, 0))
        assert row.gain.low is None or row.gain.low <= row.gain.value <= row.gain.high
    worth = [row.threshold for row in found.decision_curve if row.gain.low and row.gain.low > 0]
    assert 0.5 in worth
    images = scored()
    constant = assess(images.assign(probability=0.6), POLICIES, resamples=20).decision_curve
    # Who refers everyone gains nothing on referring everyone, and loses where referring no one is better.
    assert [row.gain.value for row in constant] == [min(row.refer_all, 0) for row in constant]


def test_it_is_json_without_exceptions(found: Assessment) -> None:
    assert Assessment.model_validate_json(found.model_dump_json()) == found


def test_groups_are_named_in_their_order_and_add_up(found: Assessment) -> None:
    variables = {each.variable: each.groups for each in found.subgroups}
    assert list(variables) == ["Age", "Sex", "Site", "Source", "Proof of diagnosis", "Skin tone (ITA, exploratory)"]
    assert [group.group for group in variables["Age"]] == ["under 30", "45 to 59", "60 to 74", "unknown"]
    assert [group.group for group in variables["Skin tone (ITA, exploratory)"]] == [
        "very light",
        "light",
        "tan",
        "unknown",
    ]
    for groups in variables.values():
        assert sum(group.images.melanoma + group.images.nevus for group in groups) == 240


def test_histology_only_leaves_the_other_nevi_out(found: Assessment) -> None:
    assert found.histology_only.images == ClassCounts(melanoma=120, nevus=30)


def test_a_class_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="120 melanomas among 120 images"):
        assess(scored()[:120], POLICIES, resamples=10)


def test_a_group_of_one_class_has_the_figures_that_need_only_it() -> None:
    nevi = describe(scored()[120:], {"youden": 0.4}, seed=1, resamples=20)
    assert nevi.auroc is None
    assert nevi.policies["youden"].sensitivity is None
    assert 0 < nevi.policies["youden"].specificity.value < 1
    assert nevi.few == ("melanoma",)
    nobody = describe(scored()[:0], {"youden": 0.4}, seed=1, resamples=20)
    assert nobody.auroc is None
    assert nobody.images == ClassCounts(melanoma=0, nevus=0)


def test_where_all_are_caught_the_interval_is_the_exact_one_of_the_lesions() -> None:
    """Resampling would say 100% to 100%; with 60 lesions the lower end is 0.025 ** (1 / 60)."""
    everyone = describe(scored(), {"all": 1e-9}, seed=1, resamples=20).policies["all"]
    assert everyone.sensitivity.model_dump() == {"value": 1, "low": pytest.approx(0.025 ** (1 / 60)), "high": 1}
    assert everyone.specificity.model_dump() == {"value": 0, "low": 0, "high": pytest.approx(1 - 0.025 ** (1 / 120))}


@pytest.mark.parametrize(
    ("age", "band"),
    [
        (0, "under 30"),
        (29, "under 30"),
        (30, "30 to 44"),
        (75, "75 and over"),
        (120, "75 and over"),
        (1975, UNKNOWN),
        (-1, UNKNOWN),
    ],
)
def test_age_bands(age: float, band: str) -> None:
    assert age_band(age) == band


def test_what_is_not_known_is_a_group() -> None:
    rows = pd.DataFrame({"age": [float("nan"), 40], "sex": [None, "  "]})
    groups = group_columns(rows)
    assert groups["Age"].tolist() == ["unknown", "30 to 44"]
    assert groups["Sex"].tolist() == ["unknown", "unknown"]
    assert set(groups) == {"Age", "Sex"}


def test_every_missed_melanoma_is_listed_lowest_first_with_its_siblings() -> None:
    images = scored()
    entries = missed_melanomas(images, POLICIES)
    below = images[(images["label"] == 1) & (images["probability"] < 0.4)].sort_values("probability")
    assert [entry.image_id for entry in entries] == below["image_id"].tolist()
    for entry in entries:
        assert entry.missed_by[0] == "youden"
        assert ("sensitivity:0.90" in entry.missed_by) == (entry.probability < 0.2)
        assert entry.siblings.images == 1
        (sibling,) = images.loc[
            (images["lesion_id"] == entry.lesion_id) & (images["image_id"] != entry.image_id), "probability"
        ]
        assert entry.siblings.flagged["youden"] == int(sibling >= 0.4)
    assert "age" not in entries[0].known or entries[0].known["age"] != "nan"
