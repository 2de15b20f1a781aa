"""The report page and the model card, from one made-up evaluation."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from trainer.assess import assess
from trainer.card import card_of_run, model_card
from trainer.external import recalibrate
from trainer.ham10000 import DIAGNOSES
from trainer.missed import missed_melanomas
from trainer.report import write_report
from trainer.report_file import REPORT_FORMAT
from trainer.reporting_items import clear_derm, tripod_ai
from trainer.robustness import PERTURBATIONS
from trainer.seven_classes import describe_classes, probability_columns
from trainer.stress import other_diagnoses, stress
from worker.bundle import BundleManifest, PolicyThreshold, Quantisation
from worker.images.made_up import draw_lesion
from worker.images.opencv import cv2
from worker.images.preprocess import Preprocessing

POLICIES = {
    "youden": PolicyThreshold(threshold=0.4, borderline_from=0.3, sensitivity=0.9, specificity=0.8),
    "sensitivity:0.90": PolicyThreshold(threshold=0.2, borderline_from=0.1, sensitivity=0.95, specificity=0.6),
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Forty images of thirty lesions with files and scores."""
    folder = tmp_path_factory.mktemp("pictures")
    chance = np.random.default_rng(6)
    labels = np.repeat([1, 0], 20)
    raw = 1 / (1 + np.exp(-chance.normal(np.where(labels == 1, 1.0, -1.0), 1.3)))
    rows = []
    for number in range(40):
        path = folder / f"ISIC_{number:04}.jpg"
        assert cv2.imwrite(str(path), draw_lesion(number, width=80, height=60))
        rows.append(
            {
                "image_id": path.stem,
                "lesion_id": f"HAM_{number // 2 if number < 20 else number:03}",
                "path": str(path),
                "dx": "mel" if number < 20 else "nv",
                "age": 50.0,
                "sex": "<b>male</b>",
                "localization": "back",
                "dataset": "rosendahl",
                "dx_type": "histo",
                "ita": 50.0,
            }
        )
    return pd.DataFrame(rows).assign(label=labels, raw_probability=raw, probability=raw)


@pytest.fixture(scope="module")
def report(images: pd.DataFrame) -> dict[str, Any]:
    def size(lesions: int, count: int) -> dict[str, int]:
        return {"lesions": lesions, "images": count}

    side = {"all": size(30, 40), "mel": size(10, 20), "nv": size(20, 20)}
    parity = {name: {"agreement": 0.975, "differ": 1} for name in POLICIES}
    return {
        "format": REPORT_FORMAT,
        "kind": "test",
        "created": "2026-11-23T10:00:00+00:00",
        "seconds": 3,
        "run": {
            "name": "made-up",
            "config": {
                "backbone": "efficientnet-lite0",
                "size": 64,
                "classes": "two",
                "seed": 5,
                "epochs": 3,
                "gamma": 2.0,
                "alpha": 0.25,
                "head_epochs": 0,
                "unfreeze_last": -1,
                "batch_normalisation": "frozen",
                "learning_rate": 5e-4,
                "ema_momentum": 0.99,
                "weight_decay": 0.01,
                "draws": 3600,
                "sampling_power": 0.5,
                "label_smoothing": 0.05,
            },
            "split_sha256": "a" * 64,
            "split_kind": "lesion-disjoint",
            "weights_from": "a package",
            "openings": ["2026-11-23T10:00:00+00:00 evaluate"],
        },
        "policies": {name: policy.model_dump() for name, policy in POLICIES.items()},
        "refused_policies": {"sensitivity:0.95": "Received: 10 melanoma lesions. Expected: at least 59."},
        "flow": {
            "all": size(120, 160),
            "other_diagnoses": size(30, 40),
            "two_classes": size(90, 120),
            "left_out_by_limit": 0,
            "splits": {"train": side, "validation": side, "test": side},
            "training": {dx: size(11, 12) for dx in DIAGNOSES},
        },
        "leakage": {
            "compared": {"test": 40, "others": 80},
            "lesions": 0,
            "files": 0,
            "near_duplicates": 1,
            "pairs": [["ISIC_0001", "ISIC_9999"]],
            "clean": False,
        },
        "assessment": assess(images, POLICIES, resamples=40),
        "missed": missed_melanomas(images, POLICIES),
        "seeds": {"runs": [{"run": "made-up", "seed": 5, "figures": {}}], "figures": {}},
        "sources_left_out": [],
        "engine_parity": {
            "engine": "OpenVINO, converted for this report",
            "images": 40,
            "largest": 0.004,
            "mean": 0.0001,
            "auroc_difference": 0.0,
            "policies": parity,
        },
        "seven_classes": None,
        "other_diagnoses": other_diagnoses(images.assign(dx=["bcc"] * 20 + ["df"] * 20), POLICIES),
        "robustness": stress(
            images,
            lambda inputs: inputs.mean(axis=(1, 2, 3)) / 255,
            Preprocessing(size=32),
            POLICIES,
            perturbations=PERTURBATIONS[-2:],
            resamples=20,
        ),
    }


class Page(HTMLParser):
    """Collects what a browser would load, and checks that tags close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.alternatives: list[str | None] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag == "img":
            self.alternatives.append(named.get("alt"))
        if "id" in named:
            self.ids.append(named["id"] or "")
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def write(report: dict[str, Any], folder: Path, images: pd.DataFrame | None = None) -> str:
    paths = {} if images is None else {row.image_id: Path(row.path) for row in images.itertuples()}
    write_report(report, folder, paths)  # type: ignore[arg-type]
    return (folder / "report.html").read_text().replace("\N{NO-BREAK SPACE}", " ")


def test_the_page_loads_nothing_and_every_picture_has_words(
    report: dict[str, Any], images: pd.DataFrame, tmp_path: Path
) -> None:
    text = write(report, tmp_path, images)
    page = Page(text)
    assert page.open == []
    assert all(source.startswith(("data:image/", "#")) for source in page.sources)
    assert "http" not in re.sub(r'src="[^"]*"', "", text)
    assert "@import" not in text
    assert "script" not in page.tags
    assert page.alternatives
    assert all(page.alternatives)
    assert len(set(page.ids)) == len(page.ids)
    assert {source[1:] for source in page.sources if source.startswith("#")} <= set(page.ids)


def test_every_promised_section_is_there(report: dict[str, Any], tmp_path: Path) -> None:
    text = write(report, tmp_path)
    for title in (
        "Participants",
        "Leakage check",
        "Thresholds",
        "Discrimination",
        "Calibration",
        "What a flag means elsewhere",
        "Decision curve",
        "Groups",
        "Leaving one source out",
        "Other diagnoses",
        "Robustness",
        "Coverage and risk",
        "Other seeds",
        "Engine parity",
        "Every missed melanoma",
    ):
        assert f"</span> {title}</h2>" in text
    assert "sensitivity:0.95 is not offered" in text
    assert "One seed only" in text
    assert "no run was given that was trained without a source" in text
    assert "seen in training" in text
    assert "opened once" in text


def test_pictures_of_missed_melanomas_are_there_or_not(
    report: dict[str, Any], images: pd.DataFrame, tmp_path: Path
) -> None:
    missed = [entry for entry in report["missed"] if "youden" in entry["missed_by"]]
    assert missed
    with_pictures = write(report, tmp_path, images)
    assert with_pictures.count("data:image/jpeg") == len(missed)
    without = write(report, tmp_path)
    assert "data:image/jpeg" not in without
    assert "--without-pictures" in without
    assert all(entry["image_id"] in without for entry in missed)
    assert "data:image" not in (tmp_path / "report.json").read_text()


def test_what_comes_from_a_file_is_text_and_not_markup(report: dict[str, Any], tmp_path: Path) -> None:
    text = write(report, tmp_path)
    assert "<b>male</b>" not in text
    assert "&lt;b&gt;male&lt;/b&gt;" in text


def test_the_same_report_gives_the_same_bytes(report: dict[str, Any], tmp_path: Path) -> None:
    assert write(report, tmp_path) == write(report, tmp_path)


def test_what_was_left_out_is_said(report: dict[str, Any], tmp_path: Path) -> None:
    text = write({**report, "robustness": None, "other_diagnoses": None}, tmp_path)
    assert text.count("Not done: left out by --quick") == 2


def test_a_fall_of_sensitivity_under_a_change_is_a_warning_and_a_limit(report: dict[str, Any], tmp_path: Path) -> None:
    """An AUROC that holds hides it: a change may push every melanoma below the threshold and keep their order."""
    changes = json.loads(json.dumps(report["robustness"]))
    changes["policies"]["youden"]["sensitivity"]["value"] = 0.9
    for change, sensitivity in zip(changes["changes"], (0.89, 0.6, 0.4, 0.9, 0.88, 0.87), strict=True):
        change["policies"]["youden"]["sensitivity"]["value"] = sensitivity
    told = "sensitivity at youden falls from 90% to 40% (blur, pixels: 4)."
    fallen = {**report, "robustness": changes}
    assert told in write(fallen, tmp_path)
    assert told in " ".join(card(fallen, tmp_path).split())
    for change in changes["changes"]:
        change["policies"]["youden"]["sensitivity"]["value"] = 0.9
    assert "missed under drawn changes" not in write(fallen, tmp_path) + card(fallen, tmp_path)


def test_a_group_whose_melanomas_are_missed_is_a_warning_and_a_limit(report: dict[str, Any], tmp_path: Path) -> None:
    """HAM10000's MoleMax images are nearly all nevi: a model may know the camera and miss its few melanomas."""
    changed = json.loads(json.dumps(report))
    source = next(each for each in changed["assessment"]["strata"] if each["variable"] == "Source")["groups"][0]
    told = "in these groups: rosendahl (source), 0.0% (0.0 to 30.0) of 10 melanoma lesions."
    assert told not in write(changed, tmp_path) + card(changed, tmp_path)
    source["policies"]["youden"]["sensitivity"] = {"value": 0.0, "low": 0.0, "high": 0.3}
    assert told in write(changed, tmp_path)
    assert told in " ".join(card(changed, tmp_path).split())
    # Of fewer lesions than five nothing is said.
    source["few"] = ["melanoma"]
    assert told not in write(changed, tmp_path) + card(changed, tmp_path)


def test_what_is_left_within_each_source_is_told(report: dict[str, Any], tmp_path: Path) -> None:
    """Melanomas of one clinic beside nevi of another: an AUROC of all images owes much to telling clinics apart."""
    assert "within each source" not in write(report, tmp_path) + card(report, tmp_path)
    changed = json.loads(json.dumps(report))
    groups = next(each for each in changed["assessment"]["strata"] if each["variable"] == "Source")["groups"]
    for name, auroc in (("clinic", 0.612), ("practice", 0.701)):
        groups.append({**groups[0], "group": name, "auroc": {"value": auroc, "low": None, "high": None}})
    for text in (write(changed, tmp_path), " ".join(card(changed, tmp_path).split())):
        assert "clinic 0.612" in text
        assert "practice 0.701" in text


def test_what_runs_give_on_a_source_that_they_never_saw_is_told(report: dict[str, Any], tmp_path: Path) -> None:
    assert "that the training has not seen" not in write(report, tmp_path) + card(report, tmp_path)
    changed = json.loads(json.dumps(report))
    source = next(each for each in changed["assessment"]["strata"] if each["variable"] == "Source")["groups"][0]
    source["auroc"] = {"value": 0.856, "low": 0.8, "high": 0.9}
    figures = json.loads(json.dumps(source))
    figures["auroc"] = {"value": 0.714, "low": 0.618, "high": 0.803}
    figures["policies"]["youden"] = {
        "sensitivity": {"value": 0.98, "low": 0.9, "high": 1.0},
        "specificity": {"value": 0.05, "low": 0.02, "high": 0.08},
    }
    unseen = {"run": "without-it", "source": source["group"], "figures": figures}
    changed["sources_left_out"] = [unseen, {"run": "without-others", "source": "nowhere", "figures": {}}]
    for text in (write(changed, tmp_path), " ".join(card(changed, tmp_path).split())):
        assert f"Trained without {source['group']}, the same recipe has an AUROC of 0.714 (0.618 to 0.803)" in text
        assert "where with it the AUROC is 0.856" in text
        assert "98% sensitivity and 5% specificity there" in text
    # Of a run whose source the test split does not hold, nothing can be said.
    changed["sources_left_out"] = [{"run": "without-others", "source": "nowhere", "figures": {}}]
    assert "that the training has not seen" not in write(changed, tmp_path) + card(changed, tmp_path)


def test_three_seeds_have_a_range(report: dict[str, Any], tmp_path: Path) -> None:
    runs = [{"run": name, "seed": seed, "figures": {"auroc": 0.9 + seed / 100}} for seed, name in enumerate("abc")]
    seeds = {"runs": runs, "figures": {"auroc": {"mean": 0.91, "least": 0.9, "greatest": 0.92}}}
    assert "0.900 to 0.920" in write({**report, "seeds": seeds}, tmp_path)


def test_a_split_that_leaks_is_a_warning(report: dict[str, Any], tmp_path: Path) -> None:
    leaking = {**report, "run": {**report["run"], "split_kind": "random-images"}}
    assert "every figure below is too good" in write(leaking, tmp_path)


def test_a_run_without_a_source_is_called_one(report: dict[str, Any], tmp_path: Path) -> None:
    run = {**report["run"], "config": {**report["run"]["config"], "without_source": "rosendahl"}}
    without = {**report, "run": run}
    text = write(without, tmp_path)
    assert "without the source rosendahl" in text
    assert "chosen without the images of rosendahl" in text
    assert "without the images of the source `rosendahl`" in " ".join(card(without, tmp_path).split())


def test_a_report_of_images_from_elsewhere(report: dict[str, Any], images: pd.DataFrame, tmp_path: Path) -> None:
    external = {
        **{name: report[name] for name in ("format", "created", "seconds", "run", "policies", "refused_policies")},
        "kind": "external",
        "external": {**report["assessment"]["counts"], "name": "clinic", "lesion_ids_missing": 40, "ages_set_aside": 2},
        "assessment": report["assessment"],
        "missed": report["missed"],
        "recalibrated": recalibrate(images),
    }
    text = write(external, tmp_path)
    assert "After recalibration" in text
    assert "name no lesion_id for 40 of 40 images" in text
    assert "2 ages in the labels that no person has" in text
    assert "was not opened" in text
    assert "Leakage check" not in text


def test_nothing_reassures(report: dict[str, Any], tmp_path: Path) -> None:
    """Of an image below the threshold no page says that it is harmless."""
    texts = [re.sub(r'src="[^"]*"', "", write(report, tmp_path)), card(report, tmp_path)]
    for text in texts:
        allowed = text.replace('never "benign"', "").replace("benign keratosis", "")
        for word in ("benign", "harmless", "healthy", "no risk", "all clear", "rule out", "safe"):
            assert word not in allowed.lower()


def card(report: dict[str, Any] | None, folder: Path) -> str:
    (folder / "report.json").write_text(json.dumps(report))
    figures = report["assessment"]["images"] if report else {}
    metrics = {
        "split": "test, lesion-disjoint, single pass",
        "intervals": "95%",
        **report["assessment"]["counts"],  # type: ignore[index]
        "auroc": figures["auroc"],
        "auprc": figures["auprc"],
        "brier": report["assessment"]["calibration"]["after"]["brier"],  # type: ignore[index]
        "policies": {
            name: {**policy, "missed_melanoma_images": policy["missed"]} for name, policy in figures["policies"].items()
        },
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return card_of_run(folder)


def test_the_card_says_what_the_report_found_and_names_no_image(report: dict[str, Any], tmp_path: Path) -> None:
    text = card(report, tmp_path)
    assert f"{report['assessment']['images']['auroc']['value']:.3f}" in text
    assert "Not a medical device" in text
    assert "Not offered: `sensitivity:0.95`" in text
    assert "ISIC_" not in text
    assert "HAM_" not in text
    for title in ("Intended use", "Data", "Test results", "Policies", "Calibration", "Groups", "Limits", "CLEAR Derm"):
        assert f"\n## {title}\n" in text
    # Every row of a table has as many cells as its head.
    for block in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE):
        assert len({line.count(" | ") for line in block.strip().splitlines() if "---" not in line}) == 1


def test_a_run_without_an_evaluation_has_no_card(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="dermq-train evaluate"):
        card_of_run(tmp_path)


def test_a_report_of_an_older_layout_is_refused_with_what_to_do(report: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has the layout 1\. Expected: layout 2; `dermq-train evaluate"):
        card({**report, "format": 1}, tmp_path)


def test_a_bundles_card_needs_its_manifest_only_and_says_more_with_the_report(report: dict[str, Any]) -> None:
    shipped = BundleManifest.model_validate_json(Path("models/ham10000-mel-nv/bundle.json").read_text())
    alone = model_card(shipped, "a package")
    assert f"# {shipped.name} {shipped.version}\n" in alone
    assert "First weights: a package" in alone
    assert "## Groups" not in alone
    assert "## Groups" in model_card(shipped, "a package", report)


def test_the_checklists_are_whole(report: dict[str, Any]) -> None:
    for given in (report, None):
        items = tripod_ai(given)
        assert {int(item.number.rstrip("abcdefg")) for item in items} == set(range(1, 28))
        assert len(items) == len({item.number for item in items}) == 52
        assert len(clear_derm(given)) == 25
        assert all(item.answer for item in [*items, *clear_derm(given)])
    assert "Not done" in str(clear_derm({**report, "robustness": None}))


def test_a_trial_on_a_few_lesions_is_called_one(report: dict[str, Any], tmp_path: Path) -> None:
    run = {**report["run"], "config": {**report["run"]["config"], "limit": 40}}
    assert "only the first 40 lesions were used" in card({**report, "run": run}, tmp_path)
    assert "A trial" not in card(report, tmp_path)


def test_a_student_is_called_one_and_its_card_names_the_teachers(report: dict[str, Any], tmp_path: Path) -> None:
    config = {"backbone": "efficientnet-lite0", "size": 192, "classes": "seven"}
    teachers = [{"run": name, "model_sha256": "0123456789abcdef", "config": config} for name in ("one", "two")]
    settings = {**report["run"]["config"], "teachers": ["one (SHA-256 0)", "two (SHA-256 0)"]}
    taught = {**report, "run": {**report["run"], "config": settings, "teachers": teachers}}
    assert "classes, taught by 2 runs, seed" in write(taught, tmp_path)
    assert "efficientnet-lite0 at 192 pixels, seven classes (one, SHA-256 0123456789ab…)" in card(taught, tmp_path)
    assert "taught by" not in write(report, tmp_path)


def test_an_average_is_called_one_and_its_members_stand_beside_it(report: dict[str, Any], tmp_path: Path) -> None:
    members = [{"run": f"branch{seed}", "seed": seed, "weights_sha256": "0"} for seed in (2, 3, 4)]
    run = {
        **report["run"],
        "averaged": members,
        "goes_on_from": {"run": "trunk", "config": report["run"]["config"], "weights_from": "x"},
    }
    alone = {**report, "run": run, "seeds": {"runs": [], "figures": {}, "average": {"run": "mean", "figures": {}}}}
    page = write(alone, tmp_path)
    assert "average of the seeds 2, 3, 4" in page
    assert "An average of runs with other seeds" in page
    assert "One seed only" not in page
    assert "by source; 3 seeds averaged" in card(alone, tmp_path)
    figures = [{"run": f"branch{seed}", "seed": seed, "figures": {"auroc": 0.9 + seed / 100}} for seed in (2, 3, 4)]
    beside = {
        "runs": figures,
        "figures": {"auroc": {"mean": 0.93, "least": 0.92, "greatest": 0.94}},
        "average": {"run": "mean", "figures": {"auroc": 0.955}},
    }
    page = write({**alone, "seeds": beside}, tmp_path)
    assert "mean (average of their weights)" in page
    assert "0.955" in page
    assert "the range is that of the last step alone" in page


def test_artefacts_drawn_in_an_earlier_step_of_the_training_are_told(report: dict[str, Any], tmp_path: Path) -> None:
    trunk = {
        "run": "trunk",
        "config": {**report["run"]["config"], "artefacts": 0.5, "keep": "last"},
        "weights_from": "x",
    }
    told = " ".join(card({**report, "run": {**report["run"], "goes_on_from": trunk}}, tmp_path).split())
    assert "drawn on 50% of the training images" in told
    assert "the last epoch was kept" in told
    assert "Artefacts drawn on training images, see Model" in told
    assert "None in training" in card(report, tmp_path)


@pytest.fixture
def seven(report: dict[str, Any], images: pd.DataFrame) -> dict[str, Any]:
    """The same evaluation, of a run on all seven diagnoses."""
    chance = np.random.default_rng(8).dirichlet(np.ones(len(DIAGNOSES)), len(images))
    columns = dict(zip(probability_columns(), chance.T, strict=True))
    found = describe_classes(images.assign(**columns), resamples=20)
    run = {**report["run"], "config": {**report["run"]["config"], "classes": "seven"}}
    return {**report, "run": run, "seven_classes": found}


def test_a_run_on_seven_diagnoses_says_what_it_was_trained_on(seven: dict[str, Any], tmp_path: Path) -> None:
    text = card(seven, tmp_path)
    assert "3 rounds of 3,600 draws, a diagnosis in proportion to its images to the power 0.5" in text
    assert "12 `bcc` of 11 lesions" in text
    assert "focal loss" not in text
    assert "## Seven diagnoses" in text
    page = write(seven, tmp_path)
    assert "The balanced accuracy" in page
    assert "said: bcc" in page


def test_a_run_whose_split_leaks_has_a_card_that_says_so(report: dict[str, Any], tmp_path: Path) -> None:
    card(report, tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    (tmp_path / "metrics.json").write_text(json.dumps({**metrics, "split": "test, random-images, single pass"}))
    assert "every figure is too good" in card_of_run(tmp_path)
    assert "70/15/15" not in card_of_run(tmp_path)


def test_the_card_of_a_bundle_in_8_bits_says_what_they_cost(report: dict[str, Any]) -> None:
    shipped = BundleManifest.model_validate_json(Path("models/ham10000-mel-nv/bundle.json").read_text())
    cost = Quantisation(layers=31, images=1180, auroc_difference=-0.0012, agreement={"youden": 0.993, "other": 0.991})
    text = model_card(shipped.model_copy(update={"precision": "int8", "quantisation": cost}), "a package", report)
    assert "computes 31 layers with 8-bit integers; all figures above are of the model in floats" in text
    assert "change the AUROC by -0.0012 and leave at least 99.10% of the triage flags" in text
    assert "## Engine parity" not in text
