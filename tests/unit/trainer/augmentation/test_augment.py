"""The random changes to a training image: repeatable, within range, and no more than asked for."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from trainer.augmentation.augment import Augmentation
from worker.images.colour import RGBImage
from worker.synthetic.lesion import draw_lesion

#: Nothing but rotation and flips.
GEOMETRY_ONLY = Augmentation(
    scale=(1, 1),
    stretch=1,
    shift=0,
    brightness=0,
    contrast=0,
    saturation=0,
    white_balance=0,
    cutout=0,
    cutout_side=0.35,
)
SEEDS = range(12)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def disc(size: int, radius: float) -> npt.NDArray[np.bool_]:
    y, x = np.ogrid[:size, :size]
    return np.asarray(np.hypot(x - (size - 1) / 2, y - (size - 1) / 2) < radius)


@pytest.fixture(scope="module")
def source() -> RGBImage:
    return draw_lesion(3, width=341, height=256)


@pytest.mark.parametrize("shape", [(256, 341), (341, 256), (64, 64), (600, 450)])
@pytest.mark.parametrize("size", [96, 224])
def test_any_cached_size_gives_the_model_input(shape: tuple[int, int], size: int) -> None:
    image = draw_lesion(1, height=shape[0], width=shape[1])
    drawn = Augmentation()(image, size, rng(0))
    assert drawn.shape == (size, size, 3)
    assert drawn.dtype == np.uint8


def test_the_same_chance_gives_the_same_image_and_leaves_the_source_alone(source: RGBImage) -> None:
    before = source.copy()
    # Training draws from a read-only memory map.
    source.flags.writeable = False
    for seed in SEEDS:
        assert np.array_equal(Augmentation()(source, 96, rng(seed)), Augmentation()(source, 96, rng(seed)))
    assert np.array_equal(source, before)


def test_other_chance_gives_another_image(source: RGBImage) -> None:
    assert len({Augmentation()(source, 96, rng(seed)).tobytes() for seed in range(40)}) == 40


def test_rotation_and_flips_keep_the_colours(source: RGBImage) -> None:
    whole = source.astype(float)
    for seed in SEEDS:
        drawn = GEOMETRY_ONLY(source, 224, rng(seed)).astype(float)
        # Reflection at the border shows skin again, so the picture as a whole shifts a little.
        assert np.abs(drawn.mean(axis=(0, 1)) - whole.mean(axis=(0, 1))).max() < 12
        # One level more on either side: truncation to 8 bits.
        assert drawn.min() >= whole.min() - 1
        assert drawn.max() <= whole.max() + 1


def test_the_middle_of_the_lesion_stays_in_the_middle(source: RGBImage) -> None:
    """Rotation, flip and scale have the source's centre as their fixed point."""
    middle = np.median(source[118:138, 160:181].astype(float), axis=(0, 1))
    for seed in SEEDS:
        drawn = GEOMETRY_ONLY(source, 224, rng(seed)).astype(float)
        assert np.abs(np.median(drawn[disc(224, 9)], axis=0) - middle).max() < 8


def test_a_single_colour_stays_as_it_is() -> None:
    plain = np.full((64, 80, 3), (200, 120, 90), np.uint8)
    for seed in SEEDS:
        difference = GEOMETRY_ONLY(plain, 48, rng(seed)).astype(int) - (200, 120, 90)
        assert np.abs(difference).max() <= 1


def test_rotation_covers_every_direction_and_both_hands() -> None:
    """A wedge with a long and a short arm shows where its picture was turned to, and whether it was mirrored."""
    wedge = np.zeros((101, 101, 3), np.uint8)
    wedge[48:53, 50:90] = 255
    wedge[28:50, 48:53] = 255
    quadrants, hands = set(), set()
    y, x = np.mgrid[:101, :101] - 50.0
    for seed in range(60):
        bright = GEOMETRY_ONLY(wedge, 101, rng(seed))[..., 0] > 127
        far = bright & (np.hypot(x, y) > 28)
        along = np.array((x[far].mean(), y[far].mean()))
        along /= np.hypot(*along)
        across = x[bright] * -along[1] + y[bright] * along[0]
        quadrants.add((along[0] > 0, along[1] > 0))
        hands.add(bool(across.mean() > 0))
    assert len(quadrants) == 4
    assert hands == {True, False}


def test_scale_is_relative_to_the_canvas_fitted_into_the_input() -> None:
    """A disc of a quarter of the shorter side keeps that share at scale 1 and doubles its diameter at scale 2."""
    source = np.zeros((200, 260, 3), np.uint8)
    y, x = np.ogrid[:200, :260]
    source[np.hypot(x - 129.5, y - 99.5) < 25] = 255
    for scale, share in ((1.0, 0.25), (2.0, 0.5)):
        augmentation = Augmentation(
            scale=(scale, scale), stretch=1, shift=0, brightness=0, contrast=0, saturation=0, white_balance=0, cutout=0
        )
        bright = augmentation(source, 100, rng(0))[..., 0] > 127
        diameter = 2 * np.sqrt(bright.sum() / np.pi)
        assert diameter / 100 == pytest.approx(share, rel=0.05)


def test_stretching_makes_a_disc_an_ellipse_of_the_same_area_about_its_middle() -> None:
    source = np.zeros((200, 260, 3), np.uint8)
    y, x = np.ogrid[:200, :260]
    source[np.hypot(x - 129.5, y - 99.5) < 30] = 255
    ratios = []
    for seed in range(40):
        bright = replace(GEOMETRY_ONLY, stretch=1.25)(source, 200, rng(seed))[..., 0] > 127
        rows, columns = np.nonzero(bright)
        assert bright.sum() == pytest.approx(np.pi * 30**2, rel=0.03)
        assert (rows.mean(), columns.mean()) == pytest.approx((99.5, 99.5), abs=1.5)
        ratios.append((np.ptp(columns) + 1) / (np.ptp(rows) + 1))
    # One axis times 1.25 and the other divided by it, at most, and either way.
    assert 1 / 1.25**2 - 0.05 < min(ratios) < 0.8
    assert 1.25 < max(ratios) < 1.25**2 + 0.05


def test_brightness_stays_within_its_range_and_reaches_for_it() -> None:
    plain = np.full((32, 32, 3), 128, np.uint8)
    brighter = Augmentation(scale=(1, 1), shift=0, brightness=0.1, contrast=0, saturation=0, white_balance=0, cutout=0)
    levels = np.array([brighter(plain, 32, rng(seed)).mean() for seed in range(60)]) - 128
    assert np.abs(levels).max() <= 0.1 * 255 + 1
    assert levels.min() < -15
    assert levels.max() > 15


def test_bright_and_dark_images_are_clipped_and_do_not_wrap_around() -> None:
    strong = Augmentation(brightness=0.5, cutout=0)
    for level in (0, 255):
        plain = np.full((32, 32, 3), level, np.uint8)
        drawn = np.array([strong(plain, 32, rng(seed)).mean() for seed in range(40)])
        assert np.abs(drawn - level).max() < 0.5 * 255 + 0.06 * 255 + 20
        assert (drawn == level).any()


def test_cut_out_blanks_one_rectangle_no_larger_than_asked_for(source: RGBImage) -> None:
    always = replace(GEOMETRY_ONLY, cutout=1, cutout_side=0.3)
    for seed in SEEDS:
        # Chance is used in the same order, so the two differ in the rectangle alone.
        whole, cut = GEOMETRY_ONLY(source, 100, rng(seed)), always(source, 100, rng(seed))
        rows, columns = np.nonzero((whole != cut).any(axis=2))
        assert 0 < np.ptp(rows) + 1 <= 30
        assert 0 < np.ptp(columns) + 1 <= 30
        blank = cut[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].reshape(-1, 3)
        assert (blank == blank[0]).all()
        assert np.abs(blank[0] - whole.mean(axis=(0, 1))).max() <= 1


def test_the_colours_change_step_by_step_as_described(source: RGBImage) -> None:
    """Saturation, contrast, brightness, white balance: what one matrix does at once, a pass for each."""
    ranges = Augmentation()
    for seed in SEEDS:
        chance, x = rng(seed), source.astype(float)
        grey = x.mean(axis=2, keepdims=True)
        x = grey + (x - grey) * (1 + chance.uniform(-ranges.saturation, ranges.saturation))
        x = source.mean() + (x - source.mean()) * (1 + chance.uniform(-ranges.contrast, ranges.contrast))
        x = x + 255 * chance.uniform(-ranges.brightness, ranges.brightness)
        x = x * (1 + chance.uniform(-ranges.white_balance, ranges.white_balance, 3))
        difference = ranges._recolour(source, rng(seed)) - np.clip(x, 0, 255)
        # Rounding; OpenCV computes 8-bit images in fixed point.
        assert np.abs(difference).max() < 1.5
