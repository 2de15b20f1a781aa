"""The synthetic pictures: repeatable, of the size asked for, and like dermoscopy where the tests of others rely on
it.
"""

import numpy as np
import numpy.typing as npt
import pytest

from worker.images.colour import RGBImage
from worker.images.decode import decode
from worker.images.opencv import cv2
from worker.synthetic.lesion import draw_lesion

SEEDS = range(20)


def lesion_mask(image: RGBImage) -> npt.NDArray[np.bool_]:
    """The dark part of the middle of a picture by Otsu's threshold, hair and network blurred away."""
    grey = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (0, 0), 6)
    middle = middle_disc(image, 0.45)
    threshold, _ = cv2.threshold(grey[middle], 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return np.asarray((grey < threshold) & middle)


def middle_disc(image: RGBImage, radius: float) -> npt.NDArray[np.bool_]:
    """Pixels within `radius` shorter sides of the centre."""
    height, width = image.shape[:2]
    y, x = np.ogrid[:height, :width]
    return np.asarray(np.hypot(x - width / 2, y - height / 2) < radius * min(height, width))


def color_spread(image: RGBImage) -> float:
    """Standard deviation of a* and b* inside the lesion, summed."""
    lab = cv2.cvtColor(cv2.GaussianBlur(image, (0, 0), 4).astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    return float(lab[lesion_mask(image)][:, 1:].std(axis=0).sum())


def asymmetry(image: RGBImage) -> float:
    """Share of the lesion that a half turn about its own centroid does not map onto itself."""
    mask = lesion_mask(image)
    y, x = np.nonzero(mask)
    rows, columns = np.rint(2 * y.mean() - y).astype(int), np.rint(2 * x.mean() - x).astype(int)
    inside = (rows >= 0) & (rows < mask.shape[0]) & (columns >= 0) & (columns < mask.shape[1])
    return 1 - float(mask[rows[inside], columns[inside]].sum()) / y.size


def test_the_same_seed_gives_the_same_bytes() -> None:
    for atypical in (None, False, True):
        first = draw_lesion(7, atypical=atypical)
        draw_lesion(8)  # a picture in between must leave nothing behind
        assert np.array_equal(first, draw_lesion(7, atypical=atypical))


def test_seeds_differ() -> None:
    assert len({draw_lesion(seed, width=200, height=150).tobytes() for seed in range(40)}) == 40


@pytest.mark.parametrize(
    ("width", "height"), [(600, 450), (450, 600), (200, 150), (224, 224), (1024, 768), (33, 32), (601, 47)]
)
@pytest.mark.parametrize("atypical", [False, True])
def test_the_size_is_the_one_asked_for(width: int, height: int, atypical: bool) -> None:
    image = draw_lesion(3, width=width, height=height, atypical=atypical)
    assert image.shape == (height, width, 3)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous


def test_a_side_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match="An image of 31 x 450 pixels is too small"):
        draw_lesion(0, width=31)


def test_a_seed_keeps_its_composition_at_another_size() -> None:
    for seed in SEEDS:
        large = cv2.resize(draw_lesion(seed), (200, 150), interpolation=cv2.INTER_AREA).astype(float)
        small = draw_lesion(seed, width=200, height=150).astype(float)
        assert np.abs(large - small).mean() < 12


@pytest.mark.parametrize("atypical", [False, True])
def test_the_lesion_is_darker_than_the_skin_around_it(atypical: bool) -> None:
    for seed in SEEDS:
        image = draw_lesion(seed, atypical=atypical)
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        lesion = np.median(grey[middle_disc(image, 0.06)])
        skin = np.median(grey[middle_disc(image, 0.5) & ~middle_disc(image, 0.44)])
        assert lesion < skin - 8, f"seed {seed}: lesion {lesion}, skin {skin}"


def test_skin_runs_from_dark_to_light() -> None:
    tones = [np.median(draw_lesion(seed, width=200, height=150)[20:-20, 20:30]) for seed in range(60)]
    assert min(tones) < 90
    assert max(tones) > 170


def test_atypical_lesions_have_more_colours_and_less_symmetry() -> None:
    typical = [draw_lesion(seed, atypical=False) for seed in SEEDS]
    atypical = [draw_lesion(seed, atypical=True) for seed in SEEDS]
    assert np.mean([color_spread(image) for image in atypical]) > 1.3 * np.mean([color_spread(i) for i in typical])
    assert np.mean([asymmetry(image) for image in atypical]) > 1.3 * np.mean([asymmetry(image) for image in typical])


def test_chance_makes_some_atypical_and_most_typical() -> None:
    drawn = 0
    for seed in range(100):
        by_chance = draw_lesion(seed, width=64, height=48)
        drawn += np.array_equal(by_chance, draw_lesion(seed, width=64, height=48, atypical=True))
    assert 5 <= drawn <= 40


def test_a_jpeg_of_it_decodes_to_nearly_the_same_picture() -> None:
    image = draw_lesion(5)
    written, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 92])
    assert written
    decoded = decode(data.tobytes())
    assert decoded.shape == image.shape
    assert np.abs(decoded.astype(int) - image).mean() < 4
