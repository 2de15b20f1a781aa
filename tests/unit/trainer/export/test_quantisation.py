"""What 8 bits may cost: worked numbers on either side of each limit."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino
import pytest
from openvino import opset13 as ops

from trainer.export.quantisation import MAX_AUROC_LOSS, MIN_AGREEMENT, QuantisationCost, cost_of, quantise
from worker.inference.bundle import Calibration, PolicyThreshold

PLAIN = Calibration(method="platt", slope=1.0, intercept=0.0)
POLICIES = {
    "youden": PolicyThreshold(threshold=0.5, borderline_threshold=0.4, sensitivity=0.9, specificity=0.9),
    "sensitivity:0.95": PolicyThreshold(threshold=0.2, borderline_threshold=0.1, sensitivity=0.95, specificity=0.6),
}


def test_the_cost_is_counted_by_flag_and_policy() -> None:
    labels = np.array([1, 1, 0, 0, 0])
    before = np.array([0.9, 0.45, 0.45, 0.15, 0.05])
    # High risk to borderline under youden, lower priority to borderline, and two that change no flag of it.
    after = np.array([0.49, 0.47, 0.41, 0.42, 0.05])
    cost = cost_of(labels, before, after, PLAIN, POLICIES)
    assert cost.agreement == {"youden": pytest.approx(3 / 5), "sensitivity:0.95": pytest.approx(4 / 5)}
    # Before: 5.5 of 6 pairs of a melanoma and a nevus in order, a tie counting half; after: all of them.
    assert cost.auroc_loss == pytest.approx(5.5 / 6 - 1)


def test_the_same_output_costs_nothing() -> None:
    labels, same = np.array([1, 0]), np.array([0.7, 0.3])
    assert cost_of(labels, same, same, PLAIN, POLICIES).faults == []


@pytest.mark.parametrize(
    ("loss", "agreement", "said"),
    [
        (MAX_AUROC_LOSS, MIN_AGREEMENT, []),
        (-0.01, 1.0, []),
        (MAX_AUROC_LOSS + 1e-4, 1.0, ["the AUC falls by 0.0031"]),
        (0.0, MIN_AGREEMENT - 1e-4, ["under youden 98.99% of the flags agree"]),
        (0.02, 0.9, ["the AUC falls", "under youden 90.00%"]),
    ],
)
def test_what_is_more_than_allowed_is_said(loss: float, agreement: float, said: list[str]) -> None:
    faults = QuantisationCost(auroc_loss=loss, agreement={"youden": agreement}).faults
    assert len(faults) == len(said)
    assert all(fault.startswith(words) for fault, words in zip(faults, said, strict=True))


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


def test_a_model_whose_flags_stay_is_in_8_bits(network: Path) -> None:
    before = scores(network)
    assert quantise(network, INPUTS, INPUTS, lambda then, now: 1.0) == 3
    assert "FakeQuantize" in network.read_text()
    assert 0 < np.abs(scores(network) - before).max() < 0.1


def test_layers_go_back_to_floats_until_the_flags_stay(network: Path) -> None:
    before = scores(network)

    def none_may_move(then: npt.NDArray[np.float64], now: npt.NDArray[np.float64]) -> float:
        return float(np.mean(np.abs(then - now) < 1e-6))

    assert quantise(network, INPUTS, INPUTS, none_may_move) == 0
    assert np.abs(scores(network) - before).max() < 1e-3
