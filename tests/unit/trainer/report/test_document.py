"""The report page of one synthetic evaluation."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd

from tests.unit.trainer.synthetic_report import write_page
from trainer.metrics.cross_fitting import cross_fit


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


def test_the_page_loads_nothing_and_every_picture_has_words(
    report: dict[str, Any], evaluated_images: pd.DataFrame, tmp_path: Path
) -> None:
    text = write_page(report, tmp_path, evaluated_images)
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
    text = write_page(report, tmp_path)
    for title in (
        "Participants",
        "Leakage check",
        "Thresholds",
        "Discrimination",
        "Calibration",
        "Predictive values at other prevalences",
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
    assert "Train a run for each source with --without-source" in text
    assert "Images of the test split were in training" in text
    assert "accessed the test split once" in text


def test_pictures_of_missed_melanomas_are_there_or_not(
    report: dict[str, Any], evaluated_images: pd.DataFrame, tmp_path: Path
) -> None:
    missed = [entry for entry in report["missed"] if "youden" in entry["missed_by"]]
    assert missed
    with_pictures = write_page(report, tmp_path, evaluated_images)
    assert with_pictures.count("data:image/jpeg") == len(missed)
    without = write_page(report, tmp_path)
    assert "data:image/jpeg" not in without
    assert "--without-pictures" in without
    assert all(entry["image_id"] in without for entry in missed)
    assert "data:image" not in (tmp_path / "report.json").read_text()


def test_what_comes_from_a_file_is_text_and_not_markup(report: dict[str, Any], tmp_path: Path) -> None:
    text = write_page(report, tmp_path)
    assert "<b>male</b>" not in text
    assert "&lt;b&gt;male&lt;/b&gt;" in text


def test_the_same_report_gives_the_same_bytes(report: dict[str, Any], tmp_path: Path) -> None:
    assert write_page(report, tmp_path) == write_page(report, tmp_path)


def test_what_was_left_out_is_said(report: dict[str, Any], tmp_path: Path) -> None:
    text = write_page({**report, "robustness": None, "other_diagnoses": None}, tmp_path)
    assert text.count("Not done: left out with --skip-robustness") == 2


def test_a_report_of_images_from_elsewhere(
    report: dict[str, Any], evaluated_images: pd.DataFrame, tmp_path: Path
) -> None:
    external = {
        **{name: report[name] for name in ("created", "seconds", "subject", "policies", "refused_policies")},
        "kind": "external",
        "external": {
            **report["assessment"]["counts"],
            "name": "clinic",
            "lesion_ids_missing": 42,
            "ages_set_aside": ["150", "forty", "150"],
            "other_diagnoses": 2,
            "without_label": 3,
        },
        **{name: report[name] for name in ("assessment", "missed", "engine_parity", "robustness", "seven_classes")},
        "other_diagnoses": report["other_diagnoses"],
        "recalibrated": cross_fit(evaluated_images).model_dump(mode="json"),
    }
    text = write_page(external, tmp_path)
    assert "After recalibration" in text
    assert "name no lesion_id for 42 of 42 images" in text
    assert "3 impossible ages in the labels (150, forty): counted" in text
    assert "3 images in the folder without a label" in text
    assert "2 images of other diagnoses: only" in text
    assert "These are the labelled images of other diagnoses" in text
    assert "nevus images was changed" in text
    assert "test image" not in text
    assert "swapped" not in text
    below_chance = {**report["assessment"]["images"], "auroc": {"value": 0.05, "low": 0.03, "high": 0.07}}
    swapped = write_page({**external, "assessment": {**report["assessment"], "images": below_chance}}, tmp_path)
    assert "(1 and 0) are swapped in the labels" in swapped
    assert "Nothing accessed the test split" in text
    assert "Leakage check" not in text
    assert "fitted on validation images" in text
    assert "decided which epoch" in text
    of_a_place = write_page({**external, "subject": {**external["subject"], "recalibrated": True}}, tmp_path)
    assert "fitted on recalibration images" in of_a_place
    assert "(validation)" not in of_a_place
    assert "decided which epoch" not in of_a_place, "its images chose no model"
