"""The model card of one synthetic evaluation, and the checklists that it answers."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.synthetic_report import write_card
from trainer.card.model_card import card_of_run, model_card
from trainer.card.reporting_items import clear_derm, tripod_ai
from trainer.errors import InputError, MissingError
from trainer.report.schema import Report
from worker.inference.bundle import PrecisionCost, load_bundle
from worker.inference.metrics import Estimate


def test_the_card_says_what_the_report_found_and_names_no_image(report: dict[str, Any], tmp_path: Path) -> None:
    text = write_card(report, tmp_path)
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
    with pytest.raises(MissingError, match="dermq-train evaluate"):
        card_of_run(tmp_path)


def test_a_report_of_an_older_layout_is_refused_with_what_to_do(report: dict[str, Any], tmp_path: Path) -> None:
    write_card(report, tmp_path)
    (tmp_path / "report.json").write_text(json.dumps({**report, "format": 2}))
    with pytest.raises(InputError, match=r"another version wrote it.* `dermq-train evaluate"):
        card_of_run(tmp_path)


def test_a_bundles_card_needs_its_manifest_only_and_says_more_with_the_report(report: dict[str, Any]) -> None:
    shipped = load_bundle(Path("models/ham10000-mel-nv")).manifest
    alone = model_card(shipped, "a package")
    assert f"# {shipped.name} {shipped.version}\n" in alone
    assert "First weights: a package" in alone
    assert "## Groups" not in alone
    assert "## Groups" in model_card(shipped, "a package", Report.model_validate(report))


def test_the_checklists_are_whole(report: dict[str, Any]) -> None:
    found = Report.model_validate(report)
    for given in (found, None):
        items = tripod_ai(given)
        assert {int(item.number.rstrip("abcdefg")) for item in items} == set(range(1, 28))
        assert len(items) == len({item.number for item in items}) == 52
        assert len(clear_derm(given)) == 25
        assert all(item.answer for item in [*items, *clear_derm(given)])
    assert "Not done" in str(clear_derm(found.model_copy(update={"robustness": None})))


def test_the_card_of_a_bundle_in_fewer_bits_says_what_they_cost(report: dict[str, Any]) -> None:
    shipped = load_bundle(Path("models/ham10000-mel-nv")).manifest
    cost = PrecisionCost(
        images=1180,
        layers=31,
        auroc_difference=Estimate(value=-0.0012, low=-0.003, high=0.0005),
        sensitivity_difference={"youden": Estimate(value=0.004)},
    )
    text = model_card(
        shipped.model_copy(update={"precision": "int8", "precision_cost": cost}),
        "a package",
        Report.model_validate(report),
    )
    assert "computes in int8. 31 of its layers compute with 8-bit integers" in text
    assert "| Area under the ROC curve | -0.0012 (-0.0030 to +0.0005) |" in text
    assert "| Sensitivity at the specificity of `youden` | +0.0040 |" in text
