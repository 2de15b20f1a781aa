"""Skin tone of the surroundings of a lesion, as the individual typology angle (ITA). Exploratory.

Chardon, Cretois & Hourseau, "Skin colour typology and suntanning pathways", International Journal of Cosmetic Science
13:191 (1991); groups as in Del Bino & Bernerd, British Journal of Dermatology 169 Suppl 3:33 (2013). The angle is meant
for a colorimeter. Here it comes from the border of an uncalibrated dermoscopic image, under whatever light the
dermatoscope had, so it orders images at best and says nothing certain about a person.
"""

import numpy as np

from worker.images.colour import RGBImage
from worker.images.opencv import cv2

#: Groups by lower limit of the angle in degrees, from light to dark.
SKIN_TONES = (
    ("very light", 55.0),
    ("light", 41.0),
    ("intermediate", 28.0),
    ("tan", 10.0),
    ("brown", -30.0),
    ("dark", -90.0),
)
#: Width of the border that is looked at, as a share of the shorter side: lesions lie in the middle.
_BORDER = 0.12
#: Lightness below which a pixel is the dermatoscope's black rim and no skin.
_RIM_LIGHTNESS = 20.0
#: Of what is left, the darkest third may be hair or the lesion's edge, the lightest twentieth a reflection.
_QUANTILES = (0.35, 0.95)
#: Border pixels below which no skin is in sight.
_FEWEST_PIXELS = 200
#: Shorter side that an image is reduced to first; the angle is a median and needs no more.
_SIDE = 150


def individual_typology_angle(lightness: float, yellowness: float) -> float:
    """ITA in degrees: the angle of (b*, L* - 50) in the CIELAB plane.

    Args:
        lightness: L*, 0 to 100.
        yellowness: b*.

    Returns:
        Degrees; not a number when b* is not above 0: a bluish cast, for which the angle has no meaning.

    Example:
        Light skin of L* = 70, b* = 15: arctan(20 / 15) = 53.1 degrees.
    """
    return float(np.degrees(np.arctan((lightness - 50) / yellowness))) if yellowness > 0 else float("nan")


def border_angle(image: RGBImage) -> float:
    """ITA of the skin around a lesion.

    Args:
        image: as decoded, (height, width, 3), uint8, sRGB.

    Returns:
        Degrees; not a number when the border shows no skin (a black rim all round) or has a bluish cast.
    """
    scale = min(1.0, _SIDE / min(image.shape[:2]))
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    width = max(1, round(_BORDER * min(lab.shape[:2])))
    border = np.ones(lab.shape[:2], bool)
    border[width:-width, width:-width] = False
    pixels = lab[border]
    pixels = pixels[pixels[:, 0] > _RIM_LIGHTNESS]
    if len(pixels) < _FEWEST_PIXELS:
        return float("nan")
    low, high = np.quantile(pixels[:, 0], _QUANTILES)
    skin = pixels[(pixels[:, 0] >= low) & (pixels[:, 0] <= high)]
    return individual_typology_angle(float(np.median(skin[:, 0])), float(np.median(skin[:, 2])))


def skin_tone(angle: float) -> str:
    """Group of an angle, one of `SKIN_TONES` or ``unknown``."""
    return next((name for name, limit in SKIN_TONES if angle > limit), "unknown")
