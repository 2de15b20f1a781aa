"""Quantise a converted network to 8-bit integers.

Post-training quantisation by NNCF, calibrated on training images (Jacob et al., "Quantization and training of neural
networks for efficient integer-arithmetic-only inference", 2018).
"""

from pathlib import Path
from typing import Any

import nncf
import openvino

from trainer.networks.minibatches import Inputs

#: Number of training images that give the ranges of the activations.
CALIBRATION_IMAGES = 300


def quantise(model: Path, calibration: Inputs) -> int:
    """Quantise a converted model in place.

    Depthwise convolutions stay in floats: their channels differ too much in range for one scale of activations, and
    they take little time. The head stays too: it takes no time, and its few numbers would make coarse steps of the
    probability.

    Args:
        model: ``model.xml``, with ``model.bin`` beside it.
        calibration: inputs that give the ranges of the activations, (n, size, size, 3), uint8, RGB.

    Returns:
        Number of layers that compute with 8 bits.
    """
    quantised = nncf.quantize(
        openvino.Core().read_model(model),
        nncf.Dataset(calibration, lambda image: image[None]),
        subset_size=len(calibration),
        fast_bias_correction=False,
        ignored_scope=nncf.IgnoredScope(types=["GroupConvolution", "MatMul"], validate=False),
    )
    unfinished = model.with_name("quantised.xml")
    openvino.save_model(quantised, unfinished, compress_to_fp16=True)
    # The model that was read is mapped into memory, so its file is replaced and not overwritten.
    unfinished.with_suffix(".bin").replace(model.with_suffix(".bin"))
    unfinished.replace(model)
    return sum(1 for layer in quantised.get_ops() if _in_8_bits(layer))


def _in_8_bits(layer: Any) -> bool:
    if layer.get_type_name() != "Convolution":
        return False
    return bool(layer.input_value(0).get_node().get_type_name() == "FakeQuantize")
