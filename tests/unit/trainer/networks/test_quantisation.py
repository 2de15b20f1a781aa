"""Quantisation to 8 bits."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino
import pytest
from openvino import opset13 as ops

from trainer.networks.quantisation import quantise


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """Three convolutions, pooling and a sigmoid, with the input and the output of a bundle's model."""
    chance = np.random.default_rng(2)
    image = ops.parameter([-1, 8, 8, 3], np.uint8, name="image")
    x = ops.transpose(ops.convert(image, np.float32), np.array([0, 3, 1, 2]))
    x = ops.multiply(x, np.float32(1 / 255))
    for before, after in ((3, 8), (8, 8), (8, 1)):
        kernel = chance.normal(0, 0.4, (after, before, 3, 3)).astype(np.float32)
        x = ops.convolution(x, kernel, [1, 1], [1, 1], [1, 1], [1, 1])
        x = ops.relu(x) if after > 1 else x
    pooled = ops.reduce_mean(x, np.array([1, 2, 3]), keep_dims=False)
    probability = ops.sigmoid(ops.reshape(pooled, np.array([-1, 1]), special_zero=False))
    probability.output(0).get_tensor().set_names({"probability"})
    path = tmp_path / "model.xml"
    openvino.save_model(openvino.Model([probability], [image]), path)
    return path


INPUTS = np.random.default_rng(3).integers(0, 256, (24, 8, 8, 3)).astype(np.uint8)


def scores(model: Path) -> npt.NDArray[np.float32]:
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.asarray(compiled(INPUTS)[0])


def test_convolutions_compute_in_8_bits(network: Path) -> None:
    before = scores(network)
    assert quantise(network, INPUTS) == 3
    assert "FakeQuantize" in network.read_text()
    assert 0 < np.abs(scores(network) - before).max() < 0.1
