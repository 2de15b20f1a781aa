"""The resized cache: its shape follows the model's input, whatever the shape of the picture."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainer.data import resized_cache
from trainer.data.resized_cache import cached_shape, load_resized_cache, resize_for_cache
from worker.images.fit import Fit
from worker.images.preprocess import Preprocessing
from worker.synthetic.archive import encode
from worker.synthetic.lesion import draw_lesion


def test_a_resized_cache_is_a_seventh_larger_than_the_input() -> None:
    assert cached_shape(Preprocessing(size=224)) == (256, 341)
    assert cached_shape(Preprocessing(size=256)) == (293, 391)
    assert cached_shape(Preprocessing(size=224, fit="contain")) == (256, 256)


@pytest.mark.parametrize("shape", [(450, 600), (600, 450), (300, 300), (200, 900), (64, 85)])
@pytest.mark.parametrize(("fit", "expected"), [("cover", (73, 97)), ("contain", (73, 73)), ("stretch", (73, 73))])
def test_every_picture_fills_its_resized_cache(shape: tuple[int, int], fit: Fit, expected: tuple[int, int]) -> None:
    picture = np.full((*shape, 3), 90, np.uint8)
    drawn = resize_for_cache(picture, Preprocessing(size=64, fit=fit))
    assert drawn.shape == (*expected, 3)
    assert (drawn == 90).all(), "neither black borders nor gaps"


def test_each_size_of_input_has_a_map_of_its_own(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.jpg" for number in range(2)]
    for number, path in enumerate(paths):
        path.write_bytes(encode(draw_lesion(number, width=120, height=90), ".jpg"))
    small, large = Preprocessing(size=32), Preprocessing(size=64)
    whole, reduced = Preprocessing(size=32, fit="contain"), Preprocessing(size=32, fit="contain", reduced_decoding=True)
    for kind in (small, large, whole, reduced, small):
        assert load_resized_cache(paths, tmp_path / "cache", kind).shape == (2, *cached_shape(kind), 3)
    assert len(list((tmp_path / "cache").iterdir())) == 4


def test_another_picture_under_the_old_name_is_decoded_anew(tmp_path: Path) -> None:
    path = tmp_path / "ISIC_1.bmp"
    path.write_bytes(encode(draw_lesion(1, width=120, height=90), ".bmp"))
    first, size = np.array(load_resized_cache([path], tmp_path / "cache", Preprocessing(size=32))), path.stat().st_size
    path.write_bytes(encode(draw_lesion(2, width=120, height=90), ".bmp"))
    assert path.stat().st_size == size
    assert not np.array_equal(load_resized_cache([path], tmp_path / "cache", Preprocessing(size=32)), first)


def test_two_that_fill_one_cache_at_once_do_not_write_into_each_others_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told apart by their process numbers, two containers were one: one trained on what the other had made black."""
    paths = []
    for seed in range(6):
        paths.append(tmp_path / f"{seed}.png")
        paths[-1].write_bytes(encode(draw_lesion(seed, width=80, height=60), ".png"))
    draw, once, others = resized_cache.resize_for_cache, threading.Lock(), []

    def draw_while_another_begins(*arguments: Any) -> Any:
        if once.acquire(blocking=False):
            others.append(resized_cache.load_resized_cache(paths, tmp_path / "cache", Preprocessing(size=32)))
        return draw(*arguments)

    monkeypatch.setattr(resized_cache, "resize_for_cache", draw_while_another_begins)
    ours = resized_cache.load_resized_cache(paths, tmp_path / "cache", Preprocessing(size=32))
    assert ours.max(axis=(1, 2, 3)).min() > 0
    assert np.array_equal(ours, others[0])
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".npy"]
