"""Bundles that would do harm: numbers that are not finite, files that are no files, names that a terminal obeys."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from db.status import TriageFlag
from tests.synthetic_bundle import METRICS, make_bundle
from worker.errors import BundleError, EngineError
from worker.inference.bundle import load_bundle
from worker.inference.triage import triage_flag

PLATT = {"method": "platt", "slope": 1.0, "intercept": 0.0}
NUMBERS = [float("nan"), float("inf"), float("-inf")]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize(
    "changes",
    [
        lambda number: {"calibration": {**PLATT, "intercept": number}},
        lambda number: {"calibration": {**PLATT, "slope": number}},
        lambda number: {"quality": {"short_side": 100, "contrast": number, "sharpness": 1.0}},
        lambda number: {"out_of_distribution": {"file": "model.bin", "limit": number, "distances": {}}},
        lambda number: {"out_of_distribution": {"file": "model.bin", "limit": 9.0, "distances": {"0.5": number}}},
        lambda number: {"metrics": {**METRICS, "auroc": {"value": number}}},
    ],
)
def test_a_number_that_is_not_finite_is_refused(tmp_path: Path, changes: Any, number: float) -> None:
    """With NaN in the calibration every image ended as a low risk."""
    make_bundle(tmp_path, **changes(number))
    with pytest.raises(BundleError, match="is invalid"):
        load_bundle(tmp_path)


@pytest.mark.parametrize("probability", [float("nan"), float("inf"), -0.1, 1.1])
def test_a_probability_that_is_none_gets_no_flag(probability: float) -> None:
    with pytest.raises(EngineError):
        triage_flag(probability, threshold=0.5, borderline_threshold=0.4)
    assert triage_flag(0.0, threshold=0.5, borderline_threshold=0.4) is TriageFlag.LOWER_PRIORITY


@pytest.mark.parametrize("name", ["bundle.json", "model.bin"])
def test_a_pipe_among_the_files_of_a_bundle_is_refused_and_not_waited_for(tmp_path: Path, name: str) -> None:
    folder = make_bundle(tmp_path / "bundle")
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(BundleError, match=name):
        load_bundle(folder)


@pytest.mark.parametrize("text", ["two\nlines", "red\x1b[31m", "\u202egpj", "  "])
@pytest.mark.parametrize("key", ["name", "version", "backbone", "licence"])
def test_a_name_that_a_terminal_would_obey_is_refused_and_shown_harmlessly(tmp_path: Path, key: str, text: str) -> None:
    make_bundle(tmp_path, **{key: text})
    with pytest.raises(BundleError) as caught:
        load_bundle(tmp_path)
    assert str(caught.value).isprintable()


def test_format_1_is_read_with_the_names_of_format_2(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path)
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest["format"] = 1
    for policy in manifest["thresholds"].values():
        policy["borderline_from"] = policy.pop("borderline_threshold")
    if "training_images" in manifest:
        manifest["made_from"] = manifest.pop("training_images")
    new = load_bundle(folder).manifest
    (folder / "bundle.json").write_text(json.dumps(manifest))
    assert load_bundle(folder).manifest == new
