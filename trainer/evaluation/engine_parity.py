"""Engine parity: how far the engine of a worker is from the Keras model, on the images of a report."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt

from trainer.config import RunConfig
from trainer.errors import InputError
from trainer.metrics.discrimination import auroc
from trainer.metrics.figures import EngineParity, FlagAgreement
from trainer.networks.converted import load_converted
from trainer.networks.heads import with_all_outputs
from trainer.networks.minibatches import predict_in_batches
from trainer.networks.openvino_conversion import convert
from worker.inference.bundle import Calibration, PolicyThreshold, load_bundle
from worker.inference.engines import load_engine

Floats = npt.NDArray[np.float64]
#: Takes inputs (n, size, size, 3), uint8, RGB, and gives the network's probabilities, (n,).
PredictInputs = Callable[[npt.NDArray[np.uint8]], Floats]


def converted_model(model: keras.Model, size: int) -> PredictInputs:
    """The model on OpenVINO, converted as for a bundle, with 32-bit floats and one image at a time.

    Args:
        model: a run's ``model.keras``, images to (n, 1).
        size: side of its square input in pixels.
    """
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.xml"
        convert(with_all_outputs(model), path, size)
        predict = load_converted(path, "float32")
    return lambda inputs: predict(inputs)[:, 0]


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
        The model, and a name of bundle and engine.

    Raises:
        BundleError: the bundle is missing or changed.
        InputError: it was made from another run.
    """
    bundle = load_bundle(folder)
    manifest = bundle.manifest
    # Calibration distinguishes seeds, which share split, size and backbone.
    theirs = (manifest.split_manifest_sha256, manifest.backbone, manifest.input.size, manifest.calibration)
    if theirs != (split_sha256, config.backbone, config.size, calibration):
        raise InputError(
            f"The bundle {folder} was not exported from this run. The bundle: split "
            f"{manifest.split_manifest_sha256[:12]}, {manifest.backbone} at {manifest.input.size} pixels, "
            f"{manifest.calibration}. The run: split {split_sha256[:12]}, {config.backbone} at {config.size} pixels, "
            f"{calibration}. Export the run, or leave out --bundle."
        )
    engine = load_engine("openvino", bundle, threads=2)
    label = f"{manifest.name} {manifest.version} on {engine.label}"

    return lambda inputs: predict_in_batches(lambda part: engine.infer(part).probability, inputs), label


def compare(
    engine: str,
    labels: npt.NDArray[np.int64],
    reference: Floats,
    found: Floats,
    calibration: Calibration,
    thresholds: dict[str, PolicyThreshold],
) -> EngineParity:
    """How far two engines are apart on the same images.

    Args:
        engine: name of the worker's engine.
        labels: (n,), 1 for melanoma and 0 for nevus.
        reference: (n,), probabilities of the Keras model, before calibration.
        found: (n,), those of the worker's engine.
        calibration: of the model.
        thresholds: by policy.
    """
    first, second = calibration.apply(reference), calibration.apply(found)
    gap = np.abs(first - second)
    ones = np.ones((1, len(labels)))
    policies = {}
    for name, policy in thresholds.items():
        differ = (first >= policy.threshold) != (second >= policy.threshold)
        policies[name] = FlagAgreement(agreement=float(1 - differ.mean()), differ=int(differ.sum()))
    return EngineParity(
        engine=engine,
        images=len(labels),
        largest=float(gap.max()),
        mean=float(gap.mean()),
        auroc_difference=float(auroc(labels, found, ones)[0] - auroc(labels, reference, ones)[0]),
        policies=policies,
    )
