"""The individual typology angle: of a known colour, and of a synthetic border."""

import math

import numpy as np
import pytest

from trainer.data.skin_tone import SKIN_TONES, border_angle, individual_typology_angle, skin_tone


def plain(red: int, green: int, blue: int) -> np.ndarray:
    return np.full((120, 160, 3), (red, green, blue), np.uint8)


def test_the_formula_by_hand() -> None:
    # arctan((70 - 50) / 15) = arctan(4 / 3) = 53.13 degrees
    assert individual_typology_angle(70, 15) == pytest.approx(53.130, abs=1e-3)
    assert individual_typology_angle(50, 20) == 0
    assert individual_typology_angle(30, 20) == pytest.approx(-45)
    assert math.isnan(individual_typology_angle(70, 0))
    assert math.isnan(individual_typology_angle(70, -3))


def test_a_plain_colour_of_known_lab_coordinates() -> None:
    # sRGB (224, 172, 105) is L* 73.79, a* 11.28, b* 41.53 by the sRGB and CIELAB formulas under D65.
    expected = math.degrees(math.atan((73.79 - 50) / 41.53))
    assert border_angle(plain(224, 172, 105)) == pytest.approx(expected, abs=0.3)


@pytest.mark.parametrize(
    ("angle", "tone"),
    [
        (70, "very light"),
        (55, "light"),
        (41.1, "light"),
        (30, "intermediate"),
        (28, "tan"),
        (10, "brown"),
        (-30, "dark"),
    ],
)
def test_groups_and_their_limits(angle: float, tone: str) -> None:
    assert skin_tone(angle) == tone


def test_no_angle_is_an_unknown_tone() -> None:
    assert skin_tone(float("nan")) == "unknown"
    assert "unknown" not in dict(SKIN_TONES)


def test_the_lesion_in_the_middle_hair_and_a_black_rim_do_not_matter() -> None:
    skin = plain(224, 172, 105)
    marked = skin.copy()
    marked[30:90, 40:120] = (60, 30, 20)
    marked[:, 10:14] = (20, 15, 10)
    marked[:8, :20] = 0
    assert border_angle(marked) == pytest.approx(border_angle(skin), abs=0.5)


def test_a_border_without_skin_or_with_a_bluish_cast_has_no_angle() -> None:
    assert math.isnan(border_angle(plain(2, 2, 2)))
    assert math.isnan(border_angle(plain(200, 200, 240)))


def test_darker_skin_has_a_smaller_angle() -> None:
    angles = [
        border_angle(plain(*colour)) for colour in ((245, 222, 200), (224, 172, 105), (141, 85, 36), (75, 45, 20))
    ]
    assert angles == sorted(angles, reverse=True)
    assert skin_tone(angles[-1]) == "dark"
