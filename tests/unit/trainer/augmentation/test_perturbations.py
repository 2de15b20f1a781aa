"""Synthetic hair, rulers, ink, rims, blur and compression: seen in the pixels."""

import numpy as np
import pytest

from trainer.augmentation.perturbations import (
    PERTURBATIONS,
    WORKING_SIDE,
    Perturbation,
    blur,
    jpeg,
    ruler,
    vignette,
    working_copy,
)
from worker.synthetic.lesion import draw_lesion

IMAGE = draw_lesion(3, width=200, height=150)


def changed(perturbation: Perturbation, strength: float, seed: int = 1) -> np.ndarray:
    return perturbation.change(IMAGE, strength, np.random.default_rng(seed))


def distance(image: np.ndarray) -> float:
    return float(np.abs(image.astype(float) - IMAGE).mean())


def test_the_six_that_the_report_promises() -> None:
    assert [each.name for each in PERTURBATIONS] == ["hair", "ruler", "ink", "vignette", "blur", "JPEG"]


@pytest.mark.parametrize("perturbation", PERTURBATIONS, ids=lambda each: each.name)
def test_a_change_repeats_keeps_the_shape_and_leaves_the_original_alone(perturbation: Perturbation) -> None:
    before = IMAGE.copy()
    first, again = (changed(perturbation, perturbation.strengths[-1]) for _ in range(2))
    assert first.shape == IMAGE.shape
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert np.array_equal(IMAGE, before)


@pytest.mark.parametrize("perturbation", PERTURBATIONS, ids=lambda each: each.name)
def test_a_stronger_change_changes_more(perturbation: Perturbation) -> None:
    distances = [distance(changed(perturbation, strength)) for strength in perturbation.strengths]
    assert 0 < distances[0] < distances[1] < distances[2]


def test_hair_and_ink_are_drawn_anew_for_each_image() -> None:
    for perturbation in PERTURBATIONS[:3:2]:
        assert not np.array_equal(changed(perturbation, 4, seed=1), changed(perturbation, 4, seed=2))


def test_a_ruler_stands_on_a_long_edge_whichever_way_the_image_lies() -> None:
    rng = np.random.default_rng(0)
    lying = ruler(IMAGE, 0.1, rng) != IMAGE
    standing = ruler(np.ascontiguousarray(IMAGE.transpose(1, 0, 2)), 0.1, rng) != IMAGE.transpose(1, 0, 2)
    assert not lying[:130].any()
    assert lying[135:].any()
    assert np.array_equal(standing, lying.transpose(1, 0, 2))


def test_a_vignette_darkens_the_corners_and_not_the_middle() -> None:
    dark = vignette(IMAGE, 0.75, np.random.default_rng(0))
    assert dark[0, 0].max() < 5
    assert np.array_equal(dark[70:80, 95:105], IMAGE[70:80, 95:105])


@pytest.mark.parametrize("width", [150, 400])
def test_a_vignette_is_seen_in_the_middle_square_however_wide_the_image(width: int) -> None:
    dark = vignette(np.full((150, width, 3), 200, np.uint8), 0.9, np.random.default_rng(0))
    square = dark[:, (width - 150) // 2 : (width + 150) // 2]
    assert square[0, 0].max() < 30
    assert square[75, 0].min() > 190


def test_blur_takes_detail_and_jpeg_nearly_none_at_high_quality() -> None:
    rng = np.random.default_rng(0)
    assert blur(IMAGE, 4, rng).std() < IMAGE.std()
    assert distance(jpeg(IMAGE, 95, rng)) < 4


def test_large_images_are_brought_to_one_size_and_small_ones_left() -> None:
    assert working_copy(np.zeros((900, 1800, 3), np.uint8)).shape == (WORKING_SIDE, 2 * WORKING_SIDE, 3)
    assert working_copy(IMAGE) is IMAGE
