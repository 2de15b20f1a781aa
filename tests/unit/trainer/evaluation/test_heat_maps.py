"""Deletion and insertion: a map of what the probability rests on beats chance, and any other map does not."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from trainer.evaluation.heat_maps import measure_heat_maps
from trainer.metrics.figures import HeatMaps
from worker.images.opencv import cv2
from worker.images.preprocess import Preprocessing

SIZE, IMAGES = 70, 12
Floats = npt.NDArray[np.float64]


def probabilities(inputs: npt.NDArray[np.uint8]) -> Floats:
    """How rough the upper left quarter is: what blurring takes away."""
    corner = inputs[:, :35, :35].astype(float)
    return np.clip(corner.std(axis=(1, 2, 3)) / 80, 0, 1)


def measured(folder: Path, marked: tuple[slice, slice], threshold: float = 0.5) -> HeatMaps | None:
    rng = np.random.default_rng(1)
    rows = []
    for number in range(IMAGES):
        path = folder / f"{number}.png"
        cv2.imwrite(str(path), rng.integers(0, 256, (SIZE, SIZE, 3)))
        # One nevus and one melanoma below the threshold, which do not count.
        rows.append((str(path), int(number != 3), f"L{number // 2}", 0.9 if number != 5 else 0.1))
    places = np.zeros((7, 7), np.float32)
    places[marked] = 1
    return measure_heat_maps(
        pd.DataFrame(rows, columns=["path", "label", "lesion_id", "probability"]),
        Preprocessing(size=SIZE),
        lambda inputs: np.repeat(places[None], len(inputs), axis=0),
        probabilities,
        threshold,
    )


def test_a_map_of_the_right_place_beats_chance(tmp_path: Path) -> None:
    found = measured(tmp_path, (slice(0, 4), slice(0, 4)))
    assert found is not None
    assert (found.images, found.empty) == (10, 0)
    deletion, insertion = found.deletion, found.insertion
    assert deletion.area_difference.high is not None
    assert insertion.area_difference.low is not None
    assert deletion.area_difference.high < -0.05
    assert insertion.area_difference.low > 0.05
    # Nothing changed at the first share, everything at the last.
    assert deletion.by_map[0] == pytest.approx(deletion.by_chance[0])
    assert deletion.by_map[-1] == pytest.approx(insertion.by_map[0])
    assert insertion.by_map[-1] == pytest.approx(deletion.by_map[0])


def test_a_map_of_another_place_does_not(tmp_path: Path) -> None:
    found = measured(tmp_path, (slice(4, 7), slice(4, 7)))
    assert found is not None
    assert (found.deletion.area_difference.value or 0) > 0
    assert (found.insertion.area_difference.value or 0) < 0


def test_empty_maps_are_counted_and_without_a_flagged_melanoma_there_is_nothing_to_measure(tmp_path: Path) -> None:
    found = measured(tmp_path, (slice(0, 0), slice(0, 0)))
    assert found is not None
    assert found.empty == found.images
    assert measured(tmp_path, (slice(0, 4), slice(0, 4)), threshold=0.95) is None
