"""The one preprocessing: a square of the right size, from the middle or from the whole frame."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.worker.images.test_decode import with_orientation
from worker.errors import ImageFaultError
from worker.images.colour import RGBImage
from worker.images.preprocess import Fit, Preprocessing, resize_shorter_side
from worker.synthetic.archive import encode
from worker.synthetic.lesion import draw_lesion

RED, GREEN, BLUE = (200, 10, 10), (10, 200, 10), (10, 10, 200)


def bands(*, portrait: bool) -> RGBImage:
    """A frame of 4:2 whose middle square is green, with red before it and blue behind it."""
    image = np.zeros((100, 200, 3), np.uint8)
    image[:, :50], image[:, 50:150], image[:, 150:] = RED, GREEN, BLUE
    return np.ascontiguousarray(image.transpose(1, 0, 2)) if portrait else image


def close_to(pixels: npt.NDArray[np.uint8], color: tuple[int, int, int]) -> bool:
    return bool(np.abs(pixels.astype(int) - color).max() <= 3)


@pytest.mark.parametrize("portrait", [False, True])
@pytest.mark.parametrize("size", [24, 100, 160])
def test_cover_takes_the_middle(portrait: bool, size: int) -> None:
    image = Preprocessing(size=size)(bands(portrait=portrait))
    # Two pixels at the seams hold both colours.
    inner = image[2:-2] if portrait else image[:, 2:-2]
    assert close_to(inner, GREEN)


@pytest.mark.parametrize("portrait", [False, True])
@pytest.mark.parametrize("size", [24, 100, 160])
def test_stretch_keeps_the_whole_frame(portrait: bool, size: int) -> None:
    image = Preprocessing(size=size, fit="stretch")(bands(portrait=portrait))
    assert close_to(image[0, 0], RED)
    assert close_to(image[-1, -1], BLUE)
    assert close_to(image[size // 2, size // 2], GREEN)
    along = image[0] if not portrait else image[:, 0]
    assert (along.argmax(axis=1) == 1).mean() == pytest.approx(0.5, abs=2.1 / size)


@settings(deadline=None)
@given(height=st.integers(1, 300), width=st.integers(1, 300), size=st.integers(1, 64))
@pytest.mark.parametrize("fit", ["cover", "contain", "stretch"])
@example(height=449, width=600, size=57)
@example(height=1, width=300, size=64)
def test_every_shape_gives_exactly_the_size(fit: Fit, height: int, width: int, size: int) -> None:
    one_tone = np.full((height, width, 3), (180, 120, 90), np.uint8)
    image = Preprocessing(size=size, fit=fit)(one_tone)
    assert image.shape == (size, size, 3)
    assert image.dtype == np.uint8
    assert close_to(image, (180, 120, 90))


@settings(deadline=None)
@given(height=st.integers(20, 300), width=st.integers(20, 300), side=st.integers(1, 100))
def test_the_shorter_side_is_exact_and_the_proportions_stay(height: int, width: int, side: int) -> None:
    resized = resize_shorter_side(np.zeros((height, width, 3), np.uint8), side)
    assert min(resized.shape[:2]) == side
    # Not by `round`: a half may be rounded to either side.
    for found, original in zip(resized.shape, (height, width), strict=False):
        assert abs(found - original * side / min(height, width)) <= 0.5 + 1e-9


@pytest.mark.parametrize("fit", ["cover", "contain", "stretch"])
def test_an_input_of_the_right_size_is_left_as_it_is(fit: Fit) -> None:
    image = draw_lesion(3, width=96, height=96)
    assert np.array_equal(Preprocessing(size=96, fit=fit)(image), image)


def test_a_frame_turned_on_its_side_gives_the_input_turned_on_its_side() -> None:
    landscape = draw_lesion(4, width=300, height=240)
    turned = np.ascontiguousarray(np.rot90(landscape))
    for fit in ("cover", "contain", "stretch"):
        difference = np.rot90(Preprocessing(size=64, fit=fit)(landscape)).astype(int) - Preprocessing(size=64, fit=fit)(
            turned
        )
        assert np.abs(difference).max() <= 1


def test_shrinking_does_not_alias() -> None:
    """Lines a pixel wide become grey: a lesion's network must not turn into stripes that are not there."""
    lines = np.zeros((448, 448, 3), np.uint8)
    lines[:, ::2] = 255
    assert Preprocessing(size=56)(lines).std() < 2


@pytest.mark.parametrize("portrait", [False, True])
@pytest.mark.parametrize("size", [24, 100, 160])
def test_contain_keeps_the_whole_frame_and_mirrors_it_into_the_rest(portrait: bool, size: int) -> None:
    image = Preprocessing(size=size, fit="contain")(bands(portrait=portrait))
    middle = image[:, size // 2] if portrait else image[size // 2]
    assert close_to(middle[0], RED)
    assert close_to(middle[size // 2], GREEN)
    assert close_to(middle[-1], BLUE)
    # The frame is half as high as it is wide: a quarter on each side is its mirror image.
    edge = image[:, 0] if portrait else image[0]
    assert np.abs(edge.astype(int) - middle).max() <= 3


@settings(deadline=None)
@given(height=st.integers(1, 5000), width=st.integers(1, 5000), size=st.integers(1, 512))
@pytest.mark.parametrize("fit", ["cover", "contain", "stretch"])
def test_a_jpeg_is_decoded_small_only_where_that_is_enough(fit: Fit, height: int, width: int, size: int) -> None:
    divisor = Preprocessing(size=size, fit=fit, reduced_decoding=True)._divisor(height, width)
    assert divisor in (1, 2, 4, 8)
    decisive = max if fit == "contain" else min
    assert divisor == 1 or decisive(height, width) // divisor >= size
    assert divisor == 8 or decisive(height, width) // (2 * divisor) < size


@pytest.mark.parametrize("orientation", [None, 6])
def test_a_large_jpeg_is_decoded_at_a_part_of_its_size_upright(orientation: int | None) -> None:
    """A turned one goes another way, through OpenCV, which turns it."""
    picture = draw_lesion(5, width=640, height=480)
    data = encode(picture, ".jpg")
    if orientation:
        data = with_orientation(data, orientation)
    upright = np.rot90(picture, -1) if orientation else picture
    reduced = Preprocessing(size=64, fit="contain", reduced_decoding=True)
    found = reduced.decode(data)
    assert found.pixels.shape == ((80, 60, 3) if orientation else (60, 80, 3))
    assert found.short_side == 480
    whole = Preprocessing(size=64, fit="contain")
    assert np.abs(reduced.load(data).astype(int) - whole(np.ascontiguousarray(upright))).mean() < 4
    with pytest.raises(ImageFaultError, match="cut short"):
        reduced.decode(data[: len(data) // 2])


def test_other_formats_are_decoded_whole() -> None:
    picture = draw_lesion(5, width=320, height=240)
    found = Preprocessing(size=64, reduced_decoding=True).decode(encode(picture, ".png"))
    assert np.array_equal(found.pixels, picture)
    assert found.short_side == 240
