"""The bundle is the contract: what is not exactly what was exported is refused, by the name of the file."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.synthetic_bundle import FILES, make_bundle
from worker.errors import BundleError
from worker.inference.bundle import Bundle, Calibration, load_bundle
from worker.settings import SHIPPED_BUNDLE


def refusal(folder: Path) -> str:
    with pytest.raises(BundleError) as caught:
        load_bundle(folder)
    return str(caught.value)


def test_a_whole_bundle_loads_and_is_named_by_its_own_hash(tmp_path: Path) -> None:
    bundle = load_bundle(make_bundle(tmp_path))
    assert bundle.sha256 == hashlib.sha256((tmp_path / "bundle.json").read_bytes()).hexdigest()
    assert bundle.preprocessing.size == 32
    assert bundle.thresholds("youden").threshold == 0.3


@pytest.mark.parametrize("name", FILES)
def test_a_file_with_one_bit_changed_is_refused_by_name(tmp_path: Path, name: str) -> None:
    make_bundle(tmp_path)
    content = FILES[name]
    (tmp_path / name).write_bytes(bytes([content[0] ^ 1]) + content[1:])
    said = refusal(tmp_path)
    assert f"file {name} has SHA-256" in said
    assert "changed or damaged" in said


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    make_bundle(tmp_path)
    (tmp_path / name).unlink()
    assert f"file {name} cannot be read" in refusal(tmp_path)


def test_a_folder_that_is_no_bundle_says_what_was_expected(tmp_path: Path) -> None:
    said = refusal(tmp_path / "nowhere")
    assert "no readable bundle.json" in said
    assert "DERMQ_BUNDLE" in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"thresold": 1}, "thresold"),
        ({"format": 3}, "format"),
        ({"thresholds": {}}, "thresholds"),
        ({"calibration": {"method": "platt", "slope": 0.0, "intercept": 0.0}}, "calibration.slope"),
        ({"calibration": {"method": "platt", "slope": 1.0, "intercept": 0.0, "bias": 1}}, "calibration.bias"),
        ({"quality": {"short_side": 100, "contrast": 1.0}}, "quality.sharpness"),
        ({"classes": ["nv"]}, "classes"),
        ({"classes": ["mel", "bcc", "nv"]}, "outputs: expected"),
        ({"malignant": ["mole"]}, "mole is not among the classes"),
        (
            {
                "thresholds": {
                    "youden": {"threshold": 1, "borderline_threshold": 0.2, "sensitivity": 1, "specificity": 1}
                }
            },
            "thresholds.youden.threshold",
        ),
    ],
)
def test_what_is_not_understood_is_refused_by_key(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    assert said in refusal(make_bundle(tmp_path, **changes))


@pytest.mark.parametrize("content", ["", "{", "[]", "null"])
def test_a_manifest_that_is_no_json_object_is_refused(tmp_path: Path, content: str) -> None:
    (make_bundle(tmp_path) / "bundle.json").write_text(content)
    assert "is invalid" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["../outside.bin", "/etc/hostname", "reference/../../outside.bin"])
def test_a_path_that_leads_out_of_the_bundle_is_refused(tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside.bin"
    outside.write_bytes(b"x")
    hashes = {name: hashlib.sha256(b"x").hexdigest()}
    hashes |= {inside: hashlib.sha256(content).hexdigest() for inside, content in FILES.items()}
    folder = make_bundle(tmp_path / "bundle", files=hashes)
    assert "is outside the bundle" in refusal(folder)


@pytest.mark.parametrize("name", ["model.xml", "model.bin", "model.keras"])
def test_weights_without_a_hash_are_refused(tmp_path: Path, name: str) -> None:
    files = {other: hashlib.sha256(content).hexdigest() for other, content in FILES.items() if other != name}
    assert name in refusal(make_bundle(tmp_path, files=files))


def test_an_unknown_policy_names_those_that_there_are(tmp_path: Path) -> None:
    bundle = load_bundle(make_bundle(tmp_path))
    with pytest.raises(BundleError) as caught:
        bundle.thresholds("sensitivity:0.99")
    assert "'sensitivity:0.99'" in str(caught.value)
    assert "sensitivity:0.95, youden" in str(caught.value)


def test_a_bundle_cannot_be_changed_once_loaded(tmp_path: Path) -> None:
    bundle: Bundle = load_bundle(make_bundle(tmp_path))
    with pytest.raises(ValueError, match="frozen"):
        bundle.manifest.calibration.slope = 2.0  # type: ignore[misc]


def test_calibration_by_hand() -> None:
    """slope 2, intercept ln 3: odds of 1/4 become 1/16 times 3, that is 3/19."""
    platt = Calibration(method="platt", slope=2.0, intercept=float(np.log(3)))
    assert platt.apply(np.array([0.2])) == pytest.approx([3 / 19])


@settings(deadline=None)
@given(
    slope=st.floats(0.05, 10),
    intercept=st.floats(-10, 10),
    raw=st.lists(st.floats(0, 1), min_size=2, max_size=20),
)
def test_calibrated_probabilities_are_probabilities_in_the_same_order(
    slope: float, intercept: float, raw: list[float]
) -> None:
    calibrated = Calibration(method="platt", slope=slope, intercept=intercept).apply(np.sort(np.array(raw)))
    assert np.all((calibrated >= 0) & (calibrated <= 1))
    assert np.all(np.diff(calibrated) >= 0)


def test_the_shipped_bundle_is_whole_and_small_enough_for_a_repository() -> None:
    folder = Path(__file__).parents[4] / "models" / SHIPPED_BUNDLE
    assert load_bundle(folder).manifest.name == SHIPPED_BUNDLE
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 25_000_000
