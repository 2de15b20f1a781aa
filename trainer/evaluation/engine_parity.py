"""Does what a worker runs say what the Keras model says? Compared on the images of a report."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import openvino

from trainer.config import RunConfig
from trainer.metrics.discrimination import auroc
from trainer.networks.heads import with_all_outputs
from trainer.networks.minibatches import predict_in_batches
from trainer.networks.openvino_conversion import convert
from worker.inference.bundle import Calibration, PolicyThreshold, load_bundle
from worker.inference.engines import load_engine

Floats = npt.NDArray[np.float64]
#: Takes inputs (n, size, size, 3), uint8, RGB, and gives the network's probabilities, (n,).
PredictInputs = Callable[[npt.NDArray[np.uint8]], Floats]


def converted_model(model: keras.Model, size: int) -> PredictInputs:
    """The model on OpenVINO, converted here and now as for a bundle, computed as 32-bit floats one image at a time.

    Args:
        model: a run's ``model.keras``, images to (n, 1).
        size: side of its square input in pixels.
    """
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.xml"
        convert(with_all_outputs(model), path, size)
        compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()

    def infer(one: npt.NDArray[np.uint8]) -> Floats:
        return np.asarray(request.infer({0: one})["probability"], np.float64).reshape(-1)

    return lambda inputs: predict_in_batches(infer, inputs, 1)


def bundle_model(
    folder: Path, config: RunConfig, calibration: Calibration, *, split_sha256: str
) -> tuple[PredictInputs, str]:
    """A bundle on OpenVINO, as a worker runs it.

    Args:
        folder: of the bundle.
        config: of the run.
        calibration: of the run.
        split_sha256: of the run's split manifest.

    Returns:
        The scorer, and a name of bundle and engine.

    Raises:
        BundleError: the bundle is missing or changed.
        ValueError: it was made from another run.
    """
    bundle = load_bundle(folder)
    manifest = bundle.manifest
    # The calibration too: another seed has the same split, size and backbone, and its validation gives another one.
    theirs = (manifest.split_manifest_sha256, manifest.backbone, manifest.input.size, manifest.calibration)
    if theirs != (split_sha256, config.backbone, config.size, calibration):
        raise ValueError(
            f"Received: bundle {folder} of split {manifest.split_manifest_sha256[:12]}, {manifest.backbone} at "
            f"{manifest.input.size} pixels, {manifest.calibration}. Expected: one exported from this run, of split "
            f"{split_sha256[:12]}, {config.backbone} at {config.size} pixels, {calibration}."
        )
    engine = load_engine("openvino", bundle, threads=2)
    label = f"{manifest.name} {manifest.version} on {engine.label}"

    return lambda inputs: predict_in_batches(lambda part: engine.infer(part).probability, inputs), label


def compare(
    labels: npt.NDArray[np.int64],
    reference: Floats,
    found: Floats,
    calibration: Calibration,
    thresholds: dict[str, PolicyThreshold],
) -> dict[str, Any]:
    """How far two engines are apart on the same images.

    Args:
        labels: (n,), 1 for melanoma and 0 for nevus.
        reference: (n,), probabilities of the Keras model, before calibration.
        found: (n,), those of the other engine.
        calibration: of the run.
        thresholds: by policy.

    Returns:
        ``largest`` and ``mean`` difference of calibrated probabilities, ``auroc_difference`` (found minus reference),
        and by policy the share of images with the same high-risk flag, ``agreement``, and the number that differ.
    """
    first, second = calibration.apply(reference), calibration.apply(found)
    gap = np.abs(first - second)
    ones = np.ones((1, len(labels)))
    policies = {}
    for name, policy in thresholds.items():
        differ = (first >= policy.threshold) != (second >= policy.threshold)
        policies[name] = {"agreement": float(1 - differ.mean()), "differ": int(differ.sum())}
    return {
        "images": len(labels),
        "largest": float(gap.max()),
        "mean": float(gap.mean()),
        "auroc_difference": float(auroc(labels, found, ones)[0] - auroc(labels, reference, ones)[0]),
        "policies": policies,
    }
