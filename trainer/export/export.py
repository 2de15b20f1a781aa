"""From a finished run to a bundle: convert, prove that nothing changed on the way, and write it with its hashes."""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt

from trainer.card.model_card import model_card
from trainer.card.training import first_weights
from trainer.config import RunConfig
from trainer.data.ham10000 import DIAGNOSES, MALIGNANT
from trainer.data.run_images import RunImages
from trainer.data.splits import LESION_DISJOINT, TEST, TRAIN, manifest_sha256, read_manifest, split_kind
from trainer.evaluation.test_access_log import log_test_access
from trainer.export.folder import ExportError, new_bundle, refuse_occupied, seal
from trainer.export.ood_statistics import LIMIT_QUANTILE, distances, fit_image_statistics
from trainer.export.quantisation import CALIBRATION_IMAGES, agreements, cost_of, quantise
from trainer.export.reference_model import round_kernels, write_compressed
from trainer.networks.backbones import BACKBONES
from trainer.networks.heads import OUTPUTS, with_all_outputs
from trainer.networks.minibatches import predict_in_batches
from trainer.networks.openvino_conversion import convert
from trainer.networks.predict import predict, predict_by, traced
from trainer.report.report_file import read_report
from trainer.run_folder import RunFolder
from trainer.thresholds.policies import Policies, fit_policies_on_validation
from worker.images.decode import decode
from worker.images.opencv import cv2
from worker.images.preprocess import Preprocessing
from worker.images.quality import measure_quality
from worker.inference.bundle import (
    TRAINING_IMAGE_DIGITS,
    Bundle,
    BundleManifest,
    Calibration,
    ImageQuality,
    InputSpec,
    OutOfDistribution,
    Precision,
    QualityLimits,
    Quantisation,
    load_bundle,
)
from worker.inference.engines import load_engine
from worker.synthetic.lesion import draw_lesion

#: Greatest difference of a probability between the exported and the Keras model on real images.
PARITY_TOLERANCE = 0.005
#: Quantiles of a measure that the bundle states, for whoever sets a limit by it.
_QUANTILES = (0.001, 0.01, 0.05, 0.5, 0.95, 0.99, 0.995, 0.999)
#: File of the feature statistics.
_APPEARANCE_FILE = "appearance.npz"
#: File by which copies of the data set's images are told from images from elsewhere.
_MADE_FROM_FILE = "made-from.txt"
#: Images of each side by which it is told what dermoscopy looks like.
_APPEARANCE_IMAGES, _APPEARANCE_SEED = 2000, 1
#: Real images that parity is checked on.
_PARITY_IMAGES = 256
#: Images outside test, at most, whose flags say which layers go back to floats.
_FLAGGED_IMAGES = 1500
#: Seeds of the made-up reference images.
_REFERENCE_SEEDS = (11, 23, 42, 57)
#: The quality gate stops what is below this share of nearly every training image's measure.
_QUALITY_SHARE, _QUALITY_QUANTILE = 0.5, 0.001
_LICENCE = "CC BY-NC 4.0 (weights, because of HAM10000); code Apache-2.0"


def export(
    dataset: Path,
    run: Path,
    target: Path,
    *,
    name: str,
    version: str,
    precision: Precision = "float32",
    replace: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Bundle:
    """Write a run's bundle, replacing the target only when everything held.

    Args:
        dataset: the HAM10000 folder; parity and the quality limits are taken from its images.
        run: a run folder that `fit` and `evaluate` have finished.
        target: folder of the bundle.
        name: of the bundle.
        version: of the bundle.
        precision: ``float32``, or ``int8``, which opens the test split to see what it costs.
        replace: whether a bundle in the target may go.
        say: takes a line about what is being done, for the person who waits.

    Returns:
        The bundle, loaded and verified.

    Raises:
        ExportError: the target holds a bundle that is not to be replaced or something else, the run is not finished,
            its report is of other thresholds or its split leaks, the converted model differs from the Keras model, or
            8 bits cost too much.
        ValueError: the run was evaluated by a version whose report lacks figures of today's.
    """
    for needed in ("model.keras", "validation.csv", "metrics.json", "report.json"):
        if not (run / needed).is_file():
            raise ExportError(
                f"Received: run {run} without {needed}. Expected: a run after `fit`, `crossfit` if it was trained with "
                "--fold all, and `evaluate`."
            )
    report = read_report(run)
    refuse_occupied(target, replace=replace, name=name, version=version)
    if (kind := split_kind(run)) != LESION_DISJOINT:
        raise ExportError(
            f"Received: run {run}, whose split is {kind}: it leaks, and its figures hold for no new patient. Expected: "
            "a run of the clean preset."
        )
    calibration, policies = fit_policies_on_validation(run)
    stated = {name: policy.model_dump() for name, policy in policies.thresholds.items()}
    if (report["run"]["calibration"], report["policies"]) != (calibration.model_dump(), stated):
        raise ExportError(
            f"Received: run {run}, whose report.json is of another calibration or other thresholds than its "
            f"validation.csv gives. Expected: the report of these; `dermq-train evaluate {run}` makes it anew."
        )
    config = RunConfig.read(run)
    say("Converting the network")
    model, reference = (with_all_outputs(keras.saving.load_model(run / "model.keras", compile=False)) for _ in range(2))
    round_kernels(reference)
    images = RunImages(dataset, run, config)
    with new_bundle(target) as folder:
        write_compressed(reference, folder / "model.keras")
        convert(reference, folder / "model.xml", config.size)
        _write_references(reference, folder, config)
        say("Taking limits of image quality from the training images")
        manifest = _manifest(images, run, config, calibration, policies, name=name, version=version)
        say(f"Comparing it with the Keras model on {_PARITY_IMAGES} images")
        inputs = images.some_of(images.side_outside_test, _PARITY_IMAGES)
        # Once each and not for every comparison: to predict is to trace a network first, which takes seconds.
        expected, rounded = (predict(_to_probability(network), inputs) for network in (model, reference))
        if parity(_inferred(folder, manifest, inputs), expected) > PARITY_TOLERANCE:
            # Sixteen bits a weight are too few for this network.
            convert(reference, folder / "model.xml", config.size, half=False)
        _check_parity(expected, "converted model's", _inferred(folder, manifest, inputs))
        _check_parity(expected, "rounded reference's", rounded)
        if precision == "int8":
            say("Putting 8-bit integers into it, and seeing what they cost")
            cost = _quantise(images, run, folder, manifest)
            manifest = manifest.model_copy(update={"precision": precision, "quantisation": cost})
        say("Describing what dermoscopy looks like")
        manifest = manifest.model_copy(update={"out_of_distribution": _describe(images, folder)})
        # In an order that tells nothing.
        known = sorted(digest[:TRAINING_IMAGE_DIGITS] for digest in images.digests)
        (folder / _MADE_FROM_FILE).write_text("".join(f"{digest}\n" for digest in known))
        (folder / "MODEL_CARD.md").write_text(model_card(manifest, _weights_from(run, config), report))
        seal(folder, manifest)
    return load_bundle(target)


def _weights_from(run: Path, config: RunConfig) -> str:
    """Where the backbone's first weights came from: as the run noted it, or as its backbone takes them by default."""
    return first_weights(RunFolder(run).origin()) or BACKBONES[config.backbone].weights_from


def _write_references(model: keras.Model, folder: Path, config: RunConfig) -> None:
    """A few made-up images with the Keras model's probabilities, for `dermq check` to replay."""
    reference = folder / "reference"
    reference.mkdir()
    expected = {}
    preprocessing, step = Preprocessing(size=config.size), traced(_to_probability(model))
    for seed in _REFERENCE_SEEDS:
        path = reference / f"made-up-{seed}.png"
        encoded = cv2.imencode(".png", cv2.cvtColor(draw_lesion(seed, width=360, height=270), cv2.COLOR_RGB2BGR))[1]
        path.write_bytes(encoded.tobytes())
        expected[path.name] = float(predict_by(step, preprocessing(decode(path.read_bytes()))[None])[0])
    (reference / "expected.json").write_text(json.dumps(expected, indent=2) + "\n")


def _describe(images: RunImages, folder: Path) -> OutOfDistribution:
    """Write ``appearance.npz``: what dermoscopy looks like, by training images, and a limit by others."""
    training, others = images.of_every_diagnosis(_APPEARANCE_IMAGES)
    appearance = fit_image_statistics(training, seed=_APPEARANCE_SEED)
    (folder / _APPEARANCE_FILE).write_bytes(appearance.to_bytes())
    found = distances(appearance, others)
    return OutOfDistribution(
        file=_APPEARANCE_FILE, limit=float(np.quantile(found, LIMIT_QUANTILE)), distances=_quantiles(found)
    )


def _manifest(
    images: RunImages,
    run: Path,
    config: RunConfig,
    calibration: Calibration,
    policies: Policies,
    *,
    name: str,
    version: str,
) -> BundleManifest:
    seven = config.classes == "seven"
    limits, quality = _quality(images.of(TRAIN), config.size)
    return BundleManifest(
        format=1,
        name=name,
        version=version,
        created=datetime.now(UTC).replace(microsecond=0),
        backbone=config.backbone,
        classes=DIAGNOSES if seven else ("nevus", "melanoma"),
        malignant=MALIGNANT if seven else (),
        input=InputSpec(size=config.size, fit="cover", colour_order="RGB", scale="in the graph, from 0 to 255"),
        outputs=(*OUTPUTS, "class_probabilities") if seven else OUTPUTS,
        thresholds=policies.thresholds,
        calibration=calibration,
        quality=limits,
        image_quality=quality,
        metrics=json.loads((run / "metrics.json").read_text()),
        split_manifest_sha256=manifest_sha256(read_manifest(run)),
        training_images=_MADE_FROM_FILE,
        licence=_LICENCE,
        files={},
    )


def _quality(inputs: npt.NDArray[np.uint8], size: int) -> tuple[QualityLimits, ImageQuality]:
    """Limits of the quality gate, and what they were taken from."""
    measures = [measure_quality(image, image) for image in inputs]
    contrast = np.array([measure.contrast for measure in measures])
    sharpness = np.array([measure.sharpness for measure in measures])

    def limit(values: npt.NDArray[np.float64]) -> float:
        return _QUALITY_SHARE * float(np.quantile(values, _QUALITY_QUANTILE))

    # With fewer pixels than the model takes, detail would be made up by interpolation.
    limits = QualityLimits(short_side=size, contrast=limit(contrast), sharpness=limit(sharpness))
    return limits, ImageQuality(contrast=_quantiles(contrast), sharpness=_quantiles(sharpness))


def _quantiles(values: npt.NDArray[np.float64]) -> dict[str, float]:
    return {str(quantile): float(np.quantile(values, quantile)) for quantile in _QUANTILES}


def _unsealed(folder: Path, manifest: BundleManifest) -> Bundle:
    """The bundle that is being made, whose files have no hashes yet, for an engine to load."""
    return Bundle(folder=folder, sha256="", manifest=manifest)


def _check_parity(expected: npt.NDArray[np.float64], what: str, found: npt.NDArray[np.float64]) -> None:
    if (difference := parity(found, expected)) > PARITY_TOLERANCE:
        raise ExportError(
            f"On {len(expected)} real images the {what} probability differs from the Keras model's by up to "
            f"{difference:.4f}; at most {PARITY_TOLERANCE} is allowed. Nothing was written."
        )


def parity(found: npt.NDArray[np.float64], expected: npt.NDArray[np.float64]) -> float:
    """Greatest difference of a probability between what is exported and the Keras model, both (n,)."""
    return float(np.abs(found - expected).max())


def _quantise(images: RunImages, run: Path, folder: Path, manifest: BundleManifest) -> Quantisation:
    """Put 8-bit integers into the converted model, and what it then says of the reference images beside them."""
    log_test_access(run, "export --precision int8")
    inputs, labels = images.melanomas_and_nevi(TEST)
    before = _inferred(folder, manifest, inputs)
    others, _ = images.melanomas_and_nevi(images.side_outside_test, _FLAGGED_IMAGES)

    def agreement(then: npt.NDArray[np.float64], now: npt.NDArray[np.float64]) -> float:
        return min(agreements(then, now, manifest.calibration, manifest.thresholds).values())

    layers = quantise(folder / "model.xml", images.some_of(TRAIN, CALIBRATION_IMAGES), others, agreement)
    if not layers:
        raise ExportError(
            "8 bits change too many flags of images outside test, whichever layer they are in: every layer went back "
            "to floats. Nothing was written. Export with --precision float32."
        )
    cost = cost_of(labels, before, _inferred(folder, manifest, inputs), manifest.calibration, manifest.thresholds)
    if cost.faults:
        raise ExportError(
            f"8 bits cost too much on the {len(labels)} test images: {'; '.join(cost.faults)}. Nothing was written. "
            "Export with --precision float32."
        )
    reference = folder / "reference"
    expected = json.loads((reference / "expected.json").read_text())
    size = manifest.input.size
    pictures = np.stack([Preprocessing(size=size)(decode((reference / name).read_bytes())) for name in expected])
    found = dict(zip(expected, _inferred(folder, manifest, pictures).tolist(), strict=True))
    (reference / "expected-openvino.json").write_text(json.dumps(found, indent=2) + "\n")
    return Quantisation(layers=layers, images=len(labels), auroc_difference=-cost.auroc_loss, agreement=cost.agreement)


def _inferred(folder: Path, manifest: BundleManifest, inputs: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    engine = load_engine("openvino", _unsealed(folder, manifest), threads=os.cpu_count() or 1)
    return predict_in_batches(lambda part: engine.infer(part).probability, inputs)


def _to_probability(model: keras.Model) -> keras.Model:
    return keras.Model(model.input, model.output["probability"])
