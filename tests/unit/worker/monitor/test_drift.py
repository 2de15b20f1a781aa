"""Drift: images like the reference have little, others much; what cannot be told is not told."""

import numpy as np
import pytest

from db.drift import MeasuredImage
from worker.inference.bundle import load_bundle
from worker.monitor.drift import FEWEST, by_folder, measure_drift, stability_index
from worker.settings import shipped_bundle

EDGES = (-2.326, -1.645, 0.0, 1.645, 2.326)


@pytest.mark.parametrize(("shift", "low", "high"), [(0.0, 0.0, 0.05), (0.3, 0.05, 0.25), (1.0, 0.25, 5.0)])
def test_the_index_grows_with_the_shift(shift: float, low: float, high: float) -> None:
    values = np.random.default_rng(1).normal(shift, 1, 2_000).tolist()
    assert low <= stability_index(values, EDGES) <= high


def images(**measures: float | None) -> list[MeasuredImage]:
    """As many as are needed, spread over the middle half of the shipped bundle's reference but for some measures."""
    manifest = load_bundle(shipped_bundle()).manifest
    assert manifest.image_quality is not None
    assert manifest.out_of_distribution is not None
    references = {
        "probability": manifest.probabilities,
        "contrast": manifest.image_quality.contrast,
        "sharpness": manifest.image_quality.sharpness,
        "ood_score": manifest.out_of_distribution.distances,
    }
    rng = np.random.default_rng(2)
    found = []
    for number in range(1_000):
        at = rng.uniform()
        usual = {
            name: float(np.interp(at, sorted(map(float, each)), [each[key] for key in sorted(each, key=float)]))
            for name, each in references.items()
        }
        folder = "b/" if number % 3 else "a/"
        found.append(MeasuredImage(path=f"{folder}{number}.jpg", **{**usual, **measures}))  # type: ignore[arg-type]
    return found


def test_each_measure_is_compared_with_the_bundles_reference() -> None:
    manifest = load_bundle(shipped_bundle()).manifest
    usual = measure_drift(images(), manifest)
    assert [each.measure for each in usual] == ["probability", "contrast", "sharpness", "out_of_distribution"]
    assert {each.verdict for each in usual} == {"little"}
    blurred = {each.measure: each for each in measure_drift(images(sharpness=4.0), manifest)}
    assert (blurred["sharpness"].verdict, blurred["contrast"].verdict) == ("strong", "little")
    assert blurred["sharpness"].median < blurred["sharpness"].reference


def test_what_was_not_recorded_or_is_too_little_is_left_out() -> None:
    manifest = load_bundle(shipped_bundle()).manifest
    older = images(contrast=None, sharpness=None, ood_score=None)
    assert [each.measure for each in measure_drift(older, manifest)] == ["probability"]
    assert measure_drift(images()[: FEWEST - 1], manifest) == []
    without = manifest.model_copy(update={"probabilities": {}, "image_quality": None, "out_of_distribution": None})
    assert measure_drift(images(), without) == []


def test_folders_are_told_apart_when_there_are_several_of_some_size() -> None:
    assert [(name, len(part)) for name, part in by_folder(images())] == [("b", 666), ("a", 334)]
    assert list(by_folder(images()[:2])) == []
