"""The OOD detector: what it has seen and what is like it is caught, dermoscopy is not, whatever the kind left out."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from trainer.errors import DatasetError
from trainer.export.ood_detector import (
    LIMIT_QUANTILE,
    Seen,
    caught_of_unseen_groups,
    fit_detector,
    read_other_pictures,
)
from worker.errors import BundleError
from worker.images.ood_detector import OodDetector
from worker.images.opencv import cv2
from worker.images.out_of_distribution import MEASURES
from worker.images.preprocess import Preprocessing

CHANNELS = 20


def seen(count: int, seed: int, *, shift: float = 0, scale: float = 1) -> Seen:
    rng = np.random.default_rng(seed)
    return Seen(
        measures=rng.normal(shift, scale, (count, MEASURES)),
        features=rng.normal(shift / 4, 1, (count, CHANNELS)).astype(np.float32),
    )


def joined(*parts: Seen) -> Seen:
    return Seen(
        measures=np.concatenate([part.measures for part in parts]),
        features=np.concatenate([part.features for part in parts]),
    )


def scores(detector: OodDetector, images: Seen) -> npt.NDArray[np.float64]:
    return detector.scores(images.measures, images.features)


def test_it_tells_the_sides_apart_and_scores_dermoscopy_around_zero() -> None:
    detector = fit_detector(seen(600, 1), seen(300, 2, shift=1.5))
    usual, others = scores(detector, seen(400, 3)), scores(detector, seen(200, 4, shift=1.5))
    assert abs(usual.mean()) < 0.5
    assert (others > np.quantile(usual, LIMIT_QUANTILE)).mean() > 0.95


def test_products_of_measures_catch_what_is_only_wider() -> None:
    detector = fit_detector(seen(600, 1), seen(600, 2, scale=4))
    usual, others = scores(detector, seen(400, 3)), scores(detector, seen(200, 4, scale=4))
    assert (others > np.quantile(usual, LIMIT_QUANTILE)).mean() > 0.95


def test_what_is_caught_of_an_unseen_kind_is_stated() -> None:
    others = joined(seen(150, 2, shift=1.5), seen(150, 5, shift=1.4), seen(50, 6))
    groups = np.repeat(["one", "another", "like dermoscopy"], [150, 150, 50])
    caught = caught_of_unseen_groups(seen(600, 1), seen(400, 3), others, groups)
    assert 0.75 < caught < 0.95


def test_it_is_read_back_as_written() -> None:
    detector = fit_detector(seen(300, 1), seen(300, 2, shift=2))
    again = OodDetector.from_bytes(detector.to_bytes())
    assert np.array_equal(scores(again, seen(9, 3)), scores(detector, seen(9, 3)))


@pytest.mark.parametrize("broken", ["centre", "scale", "measures", "products", "intercept"])
def test_a_damaged_file_is_named(broken: str) -> None:
    detector = fit_detector(seen(300, 1), seen(300, 2, shift=2))
    parts = {name: getattr(detector, name) for name in OodDetector.__dataclass_fields__}
    parts[broken] = np.zeros(MEASURES) if broken == "scale" else np.zeros((2, 2))
    with pytest.raises(BundleError, match="statistics for the out-of-distribution gate are invalid"):
        OodDetector.from_bytes(OodDetector(**parts).to_bytes())
    with pytest.raises(BundleError, match="statistics for the out-of-distribution gate are invalid"):
        OodDetector.from_bytes(b"no file")


def test_pictures_are_read_by_kind_and_too_few_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(210):
        folder = tmp_path / ("a" if number % 2 else "b/deep")
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{number}.png"), rng.integers(0, 256, (130, 140, 3)))
    (tmp_path / "a" / "notes.txt").write_text("no picture")
    cv2.imwrite(str(tmp_path / "a" / "icon.png"), rng.integers(0, 256, (32, 32, 3)))
    preprocessing = Preprocessing(size=64)
    found = read_other_pictures([tmp_path], preprocessing, 1000)
    assert found.inputs.shape == (210, 64, 64, 3)
    assert {Path(group).name for group in found.groups} == {"a", "b"}
    assert len(read_other_pictures([tmp_path], preprocessing, 50).inputs) == 50
    with pytest.raises(DatasetError, match=r"found 105 pictures .* at least 200 are needed"):
        read_other_pictures([tmp_path / "a"], preprocessing, 1000)
    with pytest.raises(DatasetError, match="is no folder"):
        read_other_pictures([tmp_path / "missing"], preprocessing, 1000)
