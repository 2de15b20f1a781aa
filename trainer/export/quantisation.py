"""Quantise the OpenVINO model to 8-bit integers, unless that changes too much.

Post-training quantisation by NNCF, calibrated on training images (Jacob et al., "Quantization and training of neural
networks for efficient integer-arithmetic-only inference", 2018).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nncf
import numpy as np
import numpy.typing as npt
import openvino
from sklearn.metrics import roc_auc_score

from trainer.networks.minibatches import Inputs, predict_in_batches
from worker.inference.bundle import Calibration, PolicyThreshold

Floats = npt.NDArray[np.float64]
#: Takes probabilities before and after. Gives the share of images whose flag stays under every policy.
Agreement = Callable[[Floats, Floats], float]
#: Number of training images that give the ranges of the activations.
CALIBRATION_IMAGES = 300
#: Limits of what quantisation may change: loss of AUROC, and share of the same flags under every policy.
MAX_AUROC_LOSS = 0.003
MIN_AGREEMENT = 0.99
#: With this agreement on images outside test, no more layers go back to floats. Above `MIN_AGREEMENT`, as a margin.
_TARGET_AGREEMENT = 0.995


@dataclass(frozen=True, kw_only=True)
class QuantisationCost:
    """What quantisation changed on the same images.

    Args:
        auroc_loss: before minus after.
        agreement: by policy, share of images with the same triage flag (high risk, borderline, lower priority).
    """

    auroc_loss: float
    agreement: dict[str, float]

    @property
    def faults(self) -> list[str]:
        """What exceeds a limit, a sentence each."""
        faults = []
        if self.auroc_loss > MAX_AUROC_LOSS:
            faults.append(f"the AUC falls by {self.auroc_loss:.4f}, at most {MAX_AUROC_LOSS} is allowed")
        for policy, share in self.agreement.items():
            if share < MIN_AGREEMENT:
                faults.append(f"under {policy} {share:.2%} of the flags agree, {MIN_AGREEMENT:.0%} are needed")
        return faults


def quantise(model: Path, calibration: Inputs, others: Inputs, agreement: Agreement) -> int:
    """Quantise a converted model in place, as far as the flags of other images allow.

    Depthwise convolutions stay in floats: their channels differ too much in range for one scale of activations, and
    they take little time. The head stays too: it takes no time, and its few numbers would make coarse steps of the
    probability. The other layers that change the most flags go back to floats until enough flags agree.

    Args:
        model: ``model.xml``, with ``model.bin`` beside it.
        calibration: inputs that give the ranges of the activations, (n, size, size, 3), uint8, RGB.
        others: inputs that the flags are compared on.
        agreement: share of images whose flag stays when the first probabilities become the second ones.

    Returns:
        Number of layers that compute with 8 bits. 0 when all went back to floats.
    """
    core = openvino.Core()
    read = core.read_model(model)
    before = _probabilities(core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}), others)

    def validate(compiled: Any, items: Iterable[tuple[int, Inputs]]) -> tuple[float, list[float]]:
        numbers, images = zip(*items, strict=True)
        then, now = before[list(numbers)], _probabilities(compiled, np.stack(images))
        # Differences by image, so that layers are ranked on the images with the largest ones.
        return agreement(then, now), (-np.abs(then - now)).tolist()

    quantised = nncf.quantize_with_accuracy_control(
        read,
        nncf.Dataset(calibration, lambda image: image[None]),
        nncf.Dataset(list(enumerate(others)), lambda item: item[1][None]),
        validate,
        max_drop=1 - _TARGET_AGREEMENT,
        drop_type=nncf.DropType.ABSOLUTE,
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


def _probabilities(compiled: Any, inputs: Inputs) -> Floats:
    request = compiled.create_infer_request()

    def infer(part: Inputs) -> Floats:
        return np.asarray(request.infer({0: part})["probability"], np.float64).reshape(-1)

    return predict_in_batches(infer, inputs)


def agreements(
    before: Floats, after: Floats, calibration: Calibration, thresholds: dict[str, PolicyThreshold]
) -> dict[str, float]:
    """By policy, the share of images whose triage flag stays.

    Args:
        before: probabilities before calibration, (n,).
        after: those after the change.
        calibration: of the bundle.
        thresholds: by policy.
    """
    first, second = calibration.apply(before), calibration.apply(after)
    return {
        name: float(np.mean(_flags(first, policy) == _flags(second, policy))) for name, policy in thresholds.items()
    }


def cost_of(
    labels: npt.NDArray[np.int64],
    before: Floats,
    after: Floats,
    calibration: Calibration,
    thresholds: dict[str, PolicyThreshold],
) -> QuantisationCost:
    """Compare two models on the same images.

    Args:
        labels: (n,), 1 for melanoma and 0 for nevus.
        before: probabilities of the float model, (n,), before calibration.
        after: those of the quantised model.
        calibration: of the bundle.
        thresholds: by policy.
    """
    return QuantisationCost(
        auroc_loss=float(roc_auc_score(labels, before) - roc_auc_score(labels, after)),
        agreement=agreements(before, after, calibration, thresholds),
    )


def _flags(probabilities: Floats, policy: PolicyThreshold) -> npt.NDArray[np.int64]:
    """2 for high risk, 1 for borderline, 0 for lower priority, (n,)."""
    return (probabilities >= policy.threshold).astype(np.int64) + (probabilities >= policy.borderline_threshold)
