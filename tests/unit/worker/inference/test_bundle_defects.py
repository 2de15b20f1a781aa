"""Bundles that would do harm: numbers that are not finite, files that are no files, names that a terminal obeys."""

import hashlib
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from db.status import TriageFlag
from tests.synthetic_bundle import METRICS, make_bundle
from worker.errors import BundleError, EngineError
from worker.images.out_of_distribution import MEASURES, ImageStatistics
from worker.inference.bundle import load_bundle
from worker.inference.bundle_reference import configured_bundle
from worker.inference.engines import load_engine
from worker.inference.quality_gate import QualityGate
from worker.inference.reference import replay_reference
from worker.inference.triage import triage_flag
from worker.settings import Settings, shipped_bundle

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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outputs": []}, "outputs"),
        ({"outputs": ["probability"]}, "outputs"),
        ({"outputs": ["probability", "features", "feature_map", "more"]}, "outputs"),
        ({"outputs": ["probability", "probability", "features", "feature_map"]}, "outputs"),
        ({"classes": ["nevus", "nevus"], "malignant": []}, "each must be named once"),
        ({"precision": "int8"}, "exactly when its precision is not float32"),
        ({"format": True}, "format"),
    ],
)
def test_a_manifest_that_a_worker_could_not_use_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    make_bundle(tmp_path, **changes)
    with pytest.raises(BundleError, match=message):
        load_bundle(tmp_path)


@pytest.mark.parametrize(
    ("name", "digest"), [("model.xml", "ZZ\n\x1b[31mok"), ("a\0b", "0" * 64), ("model.xml", "0" * 63)]
)
def test_names_and_hashes_of_files_are_checked_before_they_are_used(tmp_path: Path, name: str, digest: str) -> None:
    folder = make_bundle(tmp_path)
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest["files"][name] = digest
    (folder / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError) as caught:
        load_bundle(folder)
    assert str(caught.value).isprintable()


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    return Path(shutil.copytree(shipped_bundle(), tmp_path / "bundle"))


def _replace(folder: Path, name: str, data: bytes) -> None:
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest["files"][name] = hashlib.sha256(data).hexdigest()
    (folder / name).write_bytes(data)
    (folder / "bundle.json").write_text(json.dumps(manifest))


def test_calibration_and_flags_of_the_reference_images_are_replayed(shipped: Path) -> None:
    """Without it a bundle whose calibration sends every image below the threshold was ok."""
    engine = load_engine("openvino", load_bundle(shipped))
    assert replay_reference(load_bundle(shipped), engine).wrong_flags == 0
    manifest = json.loads((shipped / "bundle.json").read_text())
    manifest["calibration"]["intercept"] = -50
    (shipped / "bundle.json").write_text(json.dumps(manifest))
    assert replay_reference(load_bundle(shipped), engine).wrong_flags == 4


#: Results of the engine itself, which the shipped bundle has because it computes in fewer bits than Keras.
OWN_RESULTS = "reference/expected-openvino.json"


def test_results_that_skip_the_replay_or_leave_out_an_image_are_refused(shipped: Path) -> None:
    engine = load_engine("openvino", load_bundle(shipped))
    expected = json.loads((shipped / OWN_RESULTS).read_text())
    raw = {image: result["raw_probability"] for image, result in expected.items()}
    _replace(shipped, OWN_RESULTS, json.dumps(raw).encode())
    with pytest.raises(BundleError, match="is invalid"):
        replay_reference(load_bundle(shipped), engine)
    _replace(shipped, OWN_RESULTS, json.dumps(dict(list(expected.items())[:1])).encode())
    with pytest.raises(BundleError, match="a result for each reference image"):
        replay_reference(load_bundle(shipped), engine)


def _npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def _npy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


MEAN, IDENTITY = np.zeros((1, MEASURES)), np.eye(MEASURES)[None]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no archive",
        _npy(),
        _npz(mean=MEAN),
        _npz(mean=MEAN, precision=IDENTITY)[:200],
        _npz(mean=MEAN, precision=0 * IDENTITY),
        _npz(mean=MEAN, precision=-IDENTITY),
        _npz(mean=MEAN, precision=np.triu(np.ones((1, MEASURES, MEASURES)))),
        _npz(mean=MEAN.astype(complex), precision=IDENTITY),
        _npz(mean=MEAN.astype("datetime64[s]"), precision=IDENTITY),
        _npz(mean=MEAN, precision=np.full_like(IDENTITY, 1e308)),
        _npz(mean=MEAN + np.nan, precision=IDENTITY),
    ],
)
def test_statistics_that_disable_the_out_of_distribution_gate_are_refused(shipped: Path, data: bytes) -> None:
    """With a precision of zeros every page of text had the distance 0 and was scored."""
    _with_gate(shipped, "distance", "ood-statistics.npz")
    _replace(shipped, "ood-statistics.npz", data)
    with pytest.raises(BundleError):
        QualityGate.load(load_bundle(shipped))
    assert ImageStatistics.from_bytes(_npz(mean=MEAN, precision=IDENTITY))


def _with_gate(folder: Path, kind: str, file: str) -> None:
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest["out_of_distribution"] |= {"kind": kind, "file": file}
    (folder / "bundle.json").write_text(json.dumps(manifest))


PAIRS = MEASURES * (MEASURES + 1) // 2
DETECTOR = {
    "centre": np.zeros(MEASURES), "scale": np.ones(MEASURES), "measures": np.ones(MEASURES),
    "products": np.ones(PAIRS), "features": np.ones(1280), "intercept": np.array(0.0),
}  # fmt: skip


@pytest.mark.parametrize(
    "changed",
    [
        {"scale": np.zeros(MEASURES)},
        {"products": np.zeros(PAIRS)},
        {"features": np.zeros(1280)},
        {"features": np.ones((2, 640))},
        {"intercept": np.array(np.nan)},
        {"measures": np.ones(MEASURES, np.float32)},
    ],
)
def test_a_detector_that_would_pass_everything_is_refused(shipped: Path, changed: dict[str, Any]) -> None:
    _with_gate(shipped, "detector", "ood-detector.npz")
    _replace(shipped, "ood-detector.npz", _npz(**DETECTOR))
    assert QualityGate.load(load_bundle(shipped)).detector is not None
    _replace(shipped, "ood-detector.npz", _npz(**{**DETECTOR, **changed}))
    with pytest.raises(BundleError, match="statistics for the out-of-distribution gate are invalid"):
        QualityGate.load(load_bundle(shipped))


def test_a_bundle_that_is_nested_without_end_is_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bundle.json").write_text("[" * 200_000)
    with pytest.raises(BundleError, match="is invalid"):
        load_bundle(tmp_path)
    assert configured_bundle(Settings(bundle=tmp_path)) is None
