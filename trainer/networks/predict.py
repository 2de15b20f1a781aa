"""Predictions of a Keras network by a traced graph, about twice as fast as one operation at a time."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from trainer.networks.minibatches import Inputs, predict_in_batches

#: Images in a prediction step: ResNet50 has 140 MB of activations an image.
PREDICT_BATCH = 16


def traced(model: keras.Model) -> Callable[[Inputs], Any]:
    """The network in inference mode, for images of 0 to 255; what it costs to trace is paid at the first call.

    Args:
        model: whose weights are looked up at every call; it is left as it is.

    Returns:
        Takes (n, size, size, 3), uint8, RGB; gives the model's outputs as NumPy arrays, in a dictionary if it has so.
    """
    # A model of its own around the same layers: what `compile` sets would be saved with the one that is given.
    beside = keras.Model(model.input, model.output)
    # Keras' default, XLA, is slower on a processor.
    beside.compile(jit_compile=False)
    return lambda inputs: beside.predict_on_batch(inputs.astype(np.float32))


def predict(model: keras.Model, inputs: Inputs) -> npt.NDArray[np.float64]:
    """Probability of melanoma for preprocessed images, (n,), before calibration."""
    return predict_by(traced(model), inputs)


def predict_by(step: Callable[[Inputs], Any], inputs: Inputs) -> npt.NDArray[np.float64]:
    """As `predict`, by what `traced` gave, for who predicts more than once."""
    return predict_in_batches(step, inputs, PREDICT_BATCH)[:, 0].astype(np.float64)
