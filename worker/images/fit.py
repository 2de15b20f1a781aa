"""The ways to fit an image into the model's square input. Apart from the preprocessing, which loads OpenCV."""

from typing import Literal

Fit = Literal["cover", "contain", "stretch"]
