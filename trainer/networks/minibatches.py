"""Many images through a model, part by part."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Inputs = npt.NDArray[np.uint8]

#: Images that an engine is given at once: it returns the feature maps of all that it is given.
_PART = 64


def predict_in_batches(
    infer: Callable[[Inputs], npt.NDArray[Any]], inputs: Inputs, part: int = _PART
) -> npt.NDArray[Any]:
    """Predict many images in batches, so that memory holds the activations of one batch.

    Args:
        infer: takes (n, size, size, 3), gives (n, ...).
        inputs: (images, size, size, 3), uint8, RGB, at least one image.
        part: images at once.

    Returns:
        (images, ...).
    """
    return np.concatenate([infer(inputs[start : start + part]) for start in range(0, len(inputs), part)])
