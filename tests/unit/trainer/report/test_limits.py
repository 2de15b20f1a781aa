"""What page and card must not pass over: limits of the figures, and how the run came about."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.unit.trainer.synthetic_report import write_card, write_page
from trainer.card.model_card import card_of_run
from trainer.data.diagnoses import DIAGNOSES
from trainer.errors import InputError
from trainer.metrics.seven_classes import describe_classes, probability_columns
from trainer.report.document import percent, percent_at_least
from trainer.report.schema import read_report


def with_config(report: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """The report of a run with other settings."""
    changed: dict[str, Any] = json.loads(json.dumps(report))
    changed["subject"]["origin"]["config"] |= settings
    return changed


def test_a_fall_of_sensitivity_under_a_change_is_a_warning_and_a_limit(report: dict[str, Any], tmp_path: Path) -> None:
    """An AUROC that holds hides it: a change may push every melanoma below the threshold and keep their order."""
    changes = json.loads(json.dumps(report["robustness"]))
    changes["policies"]["youden"]["sensitivity"]["value"] = 0.9
    for change, sensitivity in zip(changes["changes"], (0.89, 0.6, 0.4, 0.9, 0.88, 0.87), strict=True):
        change["policies"]["youden"]["sensitivity"]["value"] = sensitivity
        change["policies"]["youden"] |= {"melanomas_lost": 4, "melanomas_gained": 1}
    told = "sensitivity at youden falls from 90% to 40% (blur, pixels: 4)."
    fallen = {**report, "robustness": changes}
    assert told in write_page(fallen, tmp_path)
    assert told in " ".join(write_card(fallen, tmp_path).split())
    # Of fewer images than three it may be chance.
    for change in changes["changes"]:
        change["policies"]["youden"]["melanomas_gained"] = 2
    assert "Synthetic changes make the model miss" not in write_page(fallen, tmp_path) + write_card(fallen, tmp_path)
    for change in changes["changes"]:
        change["policies"]["youden"]["melanomas_gained"] = 0
        change["policies"]["youden"]["sensitivity"]["value"] = 0.9
    assert "Synthetic changes make the model miss" not in write_page(fallen, tmp_path) + write_card(fallen, tmp_path)


def test_a_group_whose_melanomas_are_missed_is_a_warning_and_a_limit(report: dict[str, Any], tmp_path: Path) -> None:
    """HAM10000's MoleMax images are nearly all nevi: a model may know the camera and miss its few melanomas."""
    changed = json.loads(json.dumps(report))
    source = next(each for each in changed["assessment"]["subgroups"] if each["variable"] == "Source")["groups"][0]
    images, lesions = source["images"]["melanoma"], source["lesions"]["melanoma"]
    told = f": rosendahl (source), 0.0% (0.0 to 30.0) of {images} melanoma images of {lesions} lesions."
    assert told not in write_page(changed, tmp_path) + write_card(changed, tmp_path)
    source["policies"]["youden"]["sensitivity"] = {"value": 0.0, "low": 0.0, "high": 0.3}
    assert told in write_page(changed, tmp_path)
    assert told in " ".join(write_card(changed, tmp_path).split())
    # Of fewer lesions than five nothing is said.
    source["few"] = ["melanoma"]
    assert told not in write_page(changed, tmp_path) + write_card(changed, tmp_path)


def test_groups_that_are_lower_by_what_may_be_chance_are_counted(report: dict[str, Any], tmp_path: Path) -> None:
    changed = json.loads(json.dumps(report))
    overall = changed["assessment"]["images"]["policies"]["youden"]["sensitivity"]
    strata = {each["variable"]: each["groups"] for each in changed["assessment"]["subgroups"]}
    for group in (group for groups in strata.values() for group in groups):
        # As good as all images: none is lower.
        group["policies"]["youden"]["sensitivity"] = dict(overall)
    strata["Source"][0]["policies"]["youden"]["sensitivity"] = {"value": 0.0, "low": 0.0, "high": 0.1}
    told = "it is lower too, perhaps by chance"
    assert told not in write_page(changed, tmp_path)
    strata["Sex"][0]["policies"]["youden"]["sensitivity"] = {**overall, "value": overall["value"] - 0.01}
    for text in (write_page(changed, tmp_path), " ".join(write_card(changed, tmp_path).split())):
        assert f"In 1 other group {told}" in text


def test_performance_within_each_source_is_reported(report: dict[str, Any], tmp_path: Path) -> None:
    """Melanomas of one clinic beside nevi of another: an AUROC of all images owes much to telling clinics apart."""
    assert "within each source" not in write_page(report, tmp_path) + write_card(report, tmp_path)
    changed = json.loads(json.dumps(report))
    groups = next(each for each in changed["assessment"]["subgroups"] if each["variable"] == "Source")["groups"]
    for name, auroc in (("clinic", 0.612), ("practice", 0.701)):
        groups.append({**groups[0], "group": name, "auroc": {"value": auroc, "low": None, "high": None}})
    for text in (write_page(changed, tmp_path), " ".join(write_card(changed, tmp_path).split())):
        assert "clinic 0.612" in text
        assert "practice 0.701" in text


def test_performance_on_a_left_out_source_is_reported(report: dict[str, Any], tmp_path: Path) -> None:
    assert "whose images were not in training" not in write_page(report, tmp_path) + write_card(report, tmp_path)
    changed = json.loads(json.dumps(report))
    source = next(each for each in changed["assessment"]["subgroups"] if each["variable"] == "Source")["groups"][0]
    source["auroc"] = {"value": 0.856, "low": 0.8, "high": 0.9}
    figures = {name: value for name, value in json.loads(json.dumps(source)).items() if name != "group"}
    figures["auroc"] = {"value": 0.714, "low": 0.618, "high": 0.803}
    figures["policies"]["youden"] = {
        "sensitivity": {"value": 0.98, "low": 0.9, "high": 1.0},
        "specificity": {"value": 0.05, "low": 0.02, "high": 0.08},
    }
    unseen = {"run": "without-it", "source": source["group"], "figures": figures}
    changed["sources_left_out"] = [unseen, {"run": "without-others", "source": "nowhere", "figures": None}]
    for text in (write_page(changed, tmp_path), " ".join(write_card(changed, tmp_path).split())):
        assert f"Trained without {source['group']}, the same recipe has an AUROC of 0.714 (0.618 to 0.803)" in text
        assert "trained with them, 0.856" in text
        assert "a sensitivity of 98% and a specificity of 5% there" in text
    # Of a run whose source the test split does not hold, nothing can be said.
    changed["sources_left_out"] = [{"run": "without-others", "source": "nowhere", "figures": None}]
    assert "whose images were not in training" not in write_page(changed, tmp_path) + write_card(changed, tmp_path)


def test_what_the_run_cannot_tell_stands_beside_its_figures(report: dict[str, Any], tmp_path: Path) -> None:
    told = "Three earlier recipes were evaluated on this test split <before> this one."
    remarked = {**report, "remarks": [told]}
    assert told.replace("<before>", "&lt;before&gt;") in write_page(remarked, tmp_path)
    assert f"\n- {told}\n" in write_card(remarked, tmp_path)
    assert "Three earlier recipes" not in write_page(report, tmp_path) + write_card(report, tmp_path)


def test_three_seeds_have_a_range(report: dict[str, Any], tmp_path: Path) -> None:
    runs = [{"run": name, "seed": seed, "figures": {"auroc": 0.9 + seed / 100}} for seed, name in enumerate("abc")]
    seeds = {"runs": runs, "figures": {"auroc": {"mean": 0.91, "least": 0.9, "greatest": 0.92}}}
    assert "0.900 to 0.920" in write_page({**report, "seeds": seeds}, tmp_path)


def test_a_split_that_leaks_is_a_warning(report: dict[str, Any], tmp_path: Path) -> None:
    leaking = {**report, "subject": {**report["subject"], "split_kind": "random-images"}}
    assert "every figure below is too good" in write_page(leaking, tmp_path)


def test_a_run_without_a_source_is_called_one(report: dict[str, Any], tmp_path: Path) -> None:
    without = with_config(report, without_source="rosendahl")
    text = write_page(without, tmp_path)
    assert "without the source rosendahl" in text
    assert "chosen, without the images of rosendahl" in text
    assert "without the images of the source `rosendahl`" in " ".join(write_card(without, tmp_path).split())


def test_nothing_reassures(report: dict[str, Any], tmp_path: Path) -> None:
    """Of an image below the threshold no page says that it is harmless."""
    texts = [re.sub(r'src="[^"]*"', "", write_page(report, tmp_path)), write_card(report, tmp_path)]
    for text in texts:
        allowed = text.replace('never "benign"', "").replace("benign keratosis", "")
        for word in ("benign", "harmless", "healthy", "no risk", "all clear", "rule out", "safe"):
            assert word not in allowed.lower()


def test_a_trial_on_a_few_lesions_is_called_one(report: dict[str, Any], tmp_path: Path) -> None:
    card = write_card(with_config(report, limit=40), tmp_path)
    assert "only the first 40 lesions of each diagnosis and side were used" in card
    assert "A trial" not in write_card(report, tmp_path)


def test_a_student_is_called_one_and_its_card_names_the_teachers(report: dict[str, Any], tmp_path: Path) -> None:
    network = {"backbone": "efficientnet-lite0", "size": 192, "classes": "seven"}
    teachers = [{"run": name, "model_sha256": "0123456789abcdef", **network} for name in ("one", "two")]
    taught = with_config(report, teachers=("one (SHA-256 0)", "two (SHA-256 0)"))
    taught["subject"]["origin"]["teachers"] = teachers
    assert "classes, taught by 2 runs, seed" in write_page(taught, tmp_path)
    assert "efficientnet-lite0 at 192 pixels, seven classes (one, SHA-256 0123456789ab…)" in write_card(
        taught, tmp_path
    )
    assert "taught by" not in write_page(report, tmp_path)


def test_artefacts_drawn_in_an_earlier_training_step_are_reported(report: dict[str, Any], tmp_path: Path) -> None:
    changed = json.loads(json.dumps(report))
    origin = changed["subject"]["origin"]
    config = {**origin["config"], "artefacts": 0.5, "checkpoint": "last"}
    origin["continues_from"] = {"run": "trunk", "config": config, "weights_from": "x"}
    told = " ".join(write_card(changed, tmp_path).split())
    assert "drawn on 50% of the training images" in told
    assert "the last epoch was kept" in told
    assert "Artefacts drawn on training images, see Model" in told
    assert "None in training" in write_card(report, tmp_path)


@pytest.fixture
def seven(report: dict[str, Any], evaluated_images: pd.DataFrame) -> dict[str, Any]:
    """The same evaluation, of a run on all seven diagnoses."""
    chance = np.random.default_rng(8).dirichlet(np.ones(len(DIAGNOSES)), len(evaluated_images))
    columns = dict(zip(probability_columns(), chance.T, strict=True))
    found = describe_classes(evaluated_images.assign(**columns), resamples=20)
    seven = with_config(report, classes="seven")
    seven["subject"]["classes"] = "seven"
    return {**seven, "seven_classes": found.model_dump(mode="json")}


def test_a_run_on_seven_diagnoses_says_what_it_was_trained_on(seven: dict[str, Any], tmp_path: Path) -> None:
    text = write_card(seven, tmp_path)
    assert (
        "3 epochs of 3,500 images, in which a diagnosis is drawn in proportion to its number of images to the power 0.5"
        in text
    )
    assert "12 `bcc` of 11 lesions" in text
    assert "focal loss" not in text
    assert "## Seven diagnoses" in text
    page = write_page(seven, tmp_path)
    assert "The balanced accuracy" in page
    assert "predicted: bcc" in page


def test_a_run_whose_split_leaks_has_a_card_that_says_so(report: dict[str, Any], tmp_path: Path) -> None:
    write_card(report, tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    (tmp_path / "metrics.json").write_text(json.dumps({**metrics, "split": "test, random-images, single pass"}))
    assert "every figure is too good" in card_of_run(tmp_path)
    assert "70/15/15" not in card_of_run(tmp_path)


def test_no_share_is_rounded_to_more_than_it_is() -> None:
    # 92 of 101 prove 0.84966, which is not 85%.
    assert (percent_at_least(0.84966), percent_at_least(0.85), percent_at_least(0.29)) == ("84.9%", "85.0%", "29.0%")
    assert (percent(2_999 / 3_000), percent(1.0), percent(0.8496), percent(None)) == ("99.9%", "100.0%", "85.0%", "-")


def test_a_small_threshold_is_shown_with_two_digits_that_say_something(report: dict[str, Any], tmp_path: Path) -> None:
    changed = json.loads(json.dumps(report))
    changed["policies"]["youden"] |= {"threshold": 0.005705, "borderline_threshold": 0.005508}
    page = write_page(changed, tmp_path)
    assert "0.0057" in page
    assert "0.0055" in page


@pytest.mark.parametrize("name", ["$x^$", r"$\frac$", "$$", "1_$2$_back"])
def test_a_dollar_sign_in_the_name_of_a_group_begins_no_formula(
    report: dict[str, Any], tmp_path: Path, name: str
) -> None:
    """Names of sites come from other people's files. With the name as a formula, no report was written."""
    changed = json.loads(json.dumps(report))
    next(each for each in changed["assessment"]["subgroups"] if each["variable"] == "Source")["groups"][0]["group"] = (
        name
    )
    assert name in write_page(changed, tmp_path)


@pytest.mark.parametrize("text", ['{"format": 3, "kind"', "{}", '{"format": 2}'])
def test_a_report_that_is_cut_short_or_of_another_version_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(InputError, match=r"report\.json cannot be used .*dermq-train evaluate .* writes it again"):
        read_report(tmp_path)
