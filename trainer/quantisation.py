"""8-bit integers in place of floats in the OpenVINO model, kept only if it still says the same.

Post-training quantisation by NNCF, calibrated on training images (Jacob et al., "Quantization and training of neural
networks for efficient integer-arithmetic-only inference", 2018).
"""

from dataclasses import dataclass
from pathlib import Path

import nncf
import numpy as np
import numpy.typing as npt
import openvino
from sklearn.metrics import roc_auc_score

from worker.bundle import Calibration, PolicyThreshold

Floats = npt.NDArray[np.float64]
#: Training images that the ranges of the activations are taken from.
CALIBRATION_IMAGES = 300
#: What quantisation may cost: of the area under the ROC curve, and of the triage flags, under every policy.
GREATEST_AUROC_LOSS = 0.003
LEAST_AGREEMENT = 0.99


@dataclass(frozen=True, kw_only=True)
class QuantisationCost:
    """What became different on the same images.

    Args:
        auroc_loss: before minus after.
        agreement: by policy, share of images whose triage flag (high risk, borderline, low risk) stayed the same.
    """

    auroc_loss: float
    agreement: dict[str, float]

    @property
    def faults(self) -> list[str]:
        """What is more than allowed, a sentence each."""
        faults = []
        if self.auroc_loss > GREATEST_AUROC_LOSS:
            faults.append(f"the AUC falls by {self.auroc_loss:.4f}, at most {GREATEST_AUROC_LOSS} is allowed")
        for policy, share in self.agreement.items():
            if share < LEAST_AGREEMENT:
                faults.append(f"under {policy} {share:.2%} of the flags agree, {LEAST_AGREEMENT:.0%} are needed")
        return faults


def quantise(model: Path, inputs: npt.NDArray[np.uint8]) -> None:
    """Quantise a converted model in place, its depthwise convolutions left as they are.

    Their channels differ too much in range for one scale of activations, and they take a small part of the time.

    Args:
        model: ``model.xml``, with ``model.bin`` beside it.
        inputs: of training images, (n, size, size, 3), uint8, RGB.
    """
    read = openvino.Core().read_model(model)
    quantised = nncf.quantize(
        read,
        nncf.Dataset(inputs, lambda image: image[None]),
        subset_size=len(inputs),
        fast_bias_correction=False,
        ignored_scope=nncf.IgnoredScope(types=["GroupConvolution"], validate=False),
    )
    unfinished = model.with_name("quantised.xml")
    openvino.save_model(quantised, unfinished, compress_to_fp16=True)
    # The model that was read is mapped into memory; it is replaced, not written over.
    unfinished.with_suffix(".bin").replace(model.with_suffix(".bin"))
    unfinished.replace(model)


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
    first, second = calibration.apply(before), calibration.apply(after)
    agreement = {
        name: float(np.mean(_flags(first, policy) == _flags(second, policy))) for name, policy in thresholds.items()
    }
    return QuantisationCost(
        auroc_loss=float(roc_auc_score(labels, before) - roc_auc_score(labels, after)), agreement=agreement
    )


def _flags(probabilities: Floats, policy: PolicyThreshold) -> npt.NDArray[np.int64]:
    """2 for high risk, 1 for borderline, 0 for low risk, (n,)."""
    return (probabilities >= policy.threshold).astype(np.int64) + (probabilities >= policy.borderline_from)
