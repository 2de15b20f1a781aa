"""A converted network on OpenVINO, as a worker computes it, for evaluations."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino

from trainer.networks.minibatches import Inputs, predict_in_batches
from worker.inference.precision import HINTS, Precision

Floats = npt.NDArray[np.float64]
#: Takes inputs (n, size, size, 3), uint8, RGB. Gives the probability of melanoma against nevus, and with seven classes
#: that of each diagnosis, (n, 1) or (n, 8).
PredictOutputs = Callable[[Inputs], Floats]


def load_converted(model: Path, precision: Precision) -> PredictOutputs:
    """Load a converted network, one image at a time.

    Args:
        model: ``model.xml``.
        precision: to compute with.
    """
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": HINTS[precision]})
    request = compiled.create_infer_request()
    named = {name for output in compiled.outputs for name in output.get_names()}
    wanted = [name for name in ("probability", "class_probabilities") if name in named]

    def infer(one: Inputs) -> Floats:
        found = request.infer({0: one})
        return np.concatenate([np.asarray(found[name], np.float64).reshape(len(one), -1) for name in wanted], axis=1)

    return lambda inputs: predict_in_batches(infer, inputs, 1)
