"""From an evaluated run to a bundle: convert the network, compare it with the run, and write it with its hashes."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt

from trainer.card.model_card import model_card
from trainer.card.training import first_weights
from trainer.config import RunConfig
from trainer.data.diagnoses import DIAGNOSES, MALIGNANT
from trainer.data.preprocessing import preprocessing_of
from trainer.data.run_images import RunImages
from trainer.data.splits import LESION_DISJOINT, TRAIN, manifest_sha256, read_manifest, split_kind
from trainer.errors import ExportError
from trainer.evaluation.served import PARITY_TOLERANCE
from trainer.export.folder import new_bundle, refuse_occupied, seal
from trainer.export.ood_detector import LIMIT_QUANTILE as DETECTOR_QUANTILE
from trainer.export.ood_detector import (
    NOTED_QUANTILE,
    OtherPictures,
    Seen,
    caught_of_unseen_groups,
    fit_detector,
    read_other_pictures,
)
from trainer.export.ood_statistics import LIMIT_QUANTILE, distances, fit_image_statistics
from trainer.export.reference_model import round_kernels, write_compressed
from trainer.networks.heads import OUTPUTS, head_of, with_all_outputs
from trainer.networks.minibatches import predict_in_batches
from trainer.networks.openvino_conversion import convert
from trainer.networks.predict import predict, predict_by, traced
from trainer.report.schema import read_report
from trainer.run_folder import RunFolder, read_predictions
from trainer.thresholds.policies import Policies, fit_policies_on_validation
from worker.images.opencv import cv2
from worker.images.quality import measure_quality
from worker.inference.bundle import (
    FORMAT,
    TRAINING_IMAGE_DIGITS,
    Bundle,
    BundleManifest,
    Calibration,
    ImageQuality,
    InputSpec,
    OutOfDistribution,
    QualityLimits,
    QualityNotes,
    load_bundle,
)
from worker.inference.engines import load_engine
from worker.inference.reference import EXPECTED_NAME, write_expected
from worker.limits import available_cpus
from worker.synthetic.lesion import draw_lesion

#: Quantiles of a measure that the bundle states, for choosing other limits.
_QUANTILES = (0.001, 0.01, 0.05, 0.5, 0.95, 0.99, 0.995, 0.999)
#: File of the OOD statistics.
_OOD_FILE = "ood-statistics.npz"
#: File of the OOD detector, which takes its place where pictures that are no dermoscopy were given.
_DETECTOR_FILE = "ood-detector.npz"
#: File of the layers behind the pooling, for evidence maps.
_HEAD_FILE = "head.npz"
#: File that tells copies of the training images from images of other clinics.
_TRAINING_IMAGES_FILE = "training-images.txt"
#: Images of each side that the OOD statistics are fitted on, and the seed of the fit.
_OOD_IMAGES, _OOD_SEED = 2000, 1
#: Images of each side that the OOD detector is fitted on.
_DETECTOR_IMAGES = 5000
#: Real images that parity is checked on.
_PARITY_IMAGES = 256
#: Seeds of the synthetic reference images.
_REFERENCE_SEEDS = (11, 23, 42, 57)
#: The quality gate refuses images below this share of a low quantile of the training images.
_QUALITY_SHARE, _QUALITY_QUANTILE = 0.5, 0.001
#: An image is noted that lies beyond this quantile of the training images, on either side.
_NOTED = 0.005
_LICENCE = "CC BY-NC 4.0 (weights, because of the training images); code Apache-2.0"


def export(
    datasets: Sequence[Path],
    run: Path,
    target: Path,
    *,
    name: str,
    version: str,
    not_dermoscopy: Sequence[Path] = (),
    replace: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Bundle:
    """Write the bundle of a run. The target is replaced only after every check.

    Args:
        datasets: folders of the data sets, whose images are needed for parity and the limits of the quality gate.
        run: a run folder after `fit` and `evaluate`.
        target: folder of the bundle.
        name: of the bundle.
        version: of the bundle.
        not_dermoscopy: folders of pictures that are no dermoscopy. Without them the OOD gate knows dermoscopy alone.
        replace: whether a bundle in the target is replaced.
        say: called with a line about each step, for the person who waits.

    Returns:
        The bundle, loaded and verified.

    Raises:
        DatasetError: see `trainer.export.ood_detector.read_other_pictures`.
        ExportError: the target holds something else or a bundle that is not to be replaced, the run is not finished,
            its report is of other thresholds or its split leaks, or the converted model differs from the Keras model.
        InputError: another version evaluated the run.
    """
    for needed in ("model.keras", "validation.csv", "metrics.json", "report.json"):
        if not (run / needed).is_file():
            raise ExportError(
                f"The run {run} has no {needed}. A run is exported after `dermq-train fit`, `crossfit` if it was "
                "trained with --fold all, and `evaluate`."
            )
    report = read_report(run)
    refuse_occupied(target, replace=replace, name=name, version=version)
    if (kind := split_kind(run)) != LESION_DISJOINT:
        raise ExportError(
            f"The run {run} has the split {kind}, which leaks: its figures hold for no "
            "new patient. Export a run of the preset clean."
        )
    calibration, policies = fit_policies_on_validation(run)
    if (report.subject.calibration, report.policies) != (calibration, policies.thresholds):
        raise ExportError(
            f"The report.json of the run {run} has another calibration or other thresholds than its validation.csv "
            f"gives. Run `dermq-train evaluate {run}` again."
        )
    config, served = RunConfig.read(run), RunFolder(run).in_precision()
    say("Converting the network")
    model, reference = (with_all_outputs(keras.saving.load_model(run / "model.keras", compile=False)) for _ in range(2))
    round_kernels(reference)
    images = RunImages(datasets, run, config)
    others = read_other_pictures(not_dermoscopy, preprocessing_of(config), _DETECTOR_IMAGES) if not_dermoscopy else None
    with new_bundle(target) as folder:
        write_compressed(reference, folder / "model.keras")
        convert(reference, folder / "model.xml", config.size)
        say("Measuring the image quality of the training images")
        manifest = _manifest(images, run, config, calibration, policies, name=name, version=version)
        _write_references(reference, folder, manifest)
        say(f"Comparing it with the Keras model on {_PARITY_IMAGES} images")
        inputs = images.some_of(images.side_outside_test, _PARITY_IMAGES)
        # Once each: before a network predicts, it is traced, which takes seconds.
        expected, rounded = (predict(_to_probability(network), inputs) for network in (model, reference))
        if served is None:
            if parity(_inferred(folder, manifest, inputs), expected) > PARITY_TOLERANCE:
                # Weights of 16 bits are too coarse for this network.
                convert(reference, folder / "model.xml", config.size, half=False)
            _check_parity(expected, "converted model's", _inferred(folder, manifest, inputs))
        else:
            # Compared with Keras when it was converted; thresholds and figures are of this very file.
            for file in ("model.xml", "model.bin"):
                (folder / file).write_bytes((RunFolder(run).served / file).read_bytes())
            manifest = manifest.model_copy(update={"precision": served.precision, "precision_cost": served.cost})
            _expect_of_engine(folder, manifest)
        _check_parity(expected, "rounded reference's", rounded)
        (folder / _HEAD_FILE).write_bytes(head_of(model).to_bytes())
        manifest = manifest.model_copy(update={"head": _HEAD_FILE})
        say("Fitting the OOD gate")
        gate = _fit_ood(images, folder) if others is None else _fit_detector(images, folder, manifest, others)
        manifest = manifest.model_copy(update={"out_of_distribution": gate})
        # Sorted, so that the order tells nothing.
        known = sorted(digest[:TRAINING_IMAGE_DIGITS] for digest in images.digests)
        (folder / _TRAINING_IMAGES_FILE).write_text("".join(f"{digest}\n" for digest in known))
        (folder / "MODEL_CARD.md").write_text(model_card(manifest, first_weights(RunFolder(run).origin()), report))
        seal(folder, manifest)
    return load_bundle(target)


def _write_references(model: keras.Model, folder: Path, manifest: BundleManifest) -> None:
    """A few synthetic images with the results of the Keras model, for `dermq check` to replay."""
    (folder / "reference").mkdir()
    expected = {}
    preprocessing, step = _unsealed(folder, manifest).preprocessing, traced(_to_probability(model))
    for seed in _REFERENCE_SEEDS:
        path = folder / "reference" / f"synthetic-{seed}.png"
        encoded = cv2.imencode(".png", cv2.cvtColor(draw_lesion(seed, width=360, height=270), cv2.COLOR_RGB2BGR))[1]
        path.write_bytes(encoded.tobytes())
        expected[path.name] = float(predict_by(step, preprocessing.load(path.read_bytes())[None])[0])
    write_expected(folder / EXPECTED_NAME, _unsealed(folder, manifest), expected)


def _fit_ood(images: RunImages, folder: Path) -> OutOfDistribution:
    """Write ``ood-statistics.npz``, fitted on training images, with a limit from other images."""
    training, others = images.of_every_diagnosis(_OOD_IMAGES)
    statistics = fit_image_statistics(training, seed=_OOD_SEED)
    (folder / _OOD_FILE).write_bytes(statistics.to_bytes())
    found = distances(statistics, others)
    return OutOfDistribution(
        file=_OOD_FILE, limit=float(np.quantile(found, LIMIT_QUANTILE)), distances=_quantiles(found)
    )


def _fit_detector(
    images: RunImages, folder: Path, manifest: BundleManifest, others: OtherPictures
) -> OutOfDistribution:
    """Write ``ood-detector.npz``, with limits from other dermoscopic images than it was fitted on."""
    engine = load_engine("openvino", _unsealed(folder, manifest), threads=available_cpus())

    def seen(inputs: npt.NDArray[np.uint8]) -> Seen:
        starts = range(0, len(inputs), _PARITY_IMAGES)
        parts = [engine.infer(inputs[start : start + _PARITY_IMAGES], features=True).features for start in starts]
        return Seen.of(inputs, np.concatenate([part for part in parts if part is not None]))

    training, held_out = (seen(side) for side in images.of_every_diagnosis(_DETECTOR_IMAGES))
    pictures = seen(others.inputs)
    detector = fit_detector(training, pictures)
    (folder / _DETECTOR_FILE).write_bytes(detector.to_bytes())
    found = detector.scores(held_out.measures, held_out.features)
    return OutOfDistribution(
        kind="detector",
        file=_DETECTOR_FILE,
        limit=float(np.quantile(found, DETECTOR_QUANTILE)),
        noted=float(np.quantile(found, NOTED_QUANTILE)),
        distances=_quantiles(found),
        caught=caught_of_unseen_groups(training, held_out, pictures, others.groups),
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
    limits, notes, quality = _quality(images.of(TRAIN), config.size)
    return BundleManifest(
        format=FORMAT,
        name=name,
        version=version,
        created=datetime.now(UTC).replace(microsecond=0),
        backbone=config.backbone,
        classes=DIAGNOSES if seven else ("nevus", "melanoma"),
        malignant=MALIGNANT if seven else (),
        input=InputSpec(
            size=config.size,
            fit=config.fit,
            reduced_decoding=config.reduced_decoding,
            colour_order="RGB",
            scale="in the graph, from 0 to 255",
        ),
        outputs=(*OUTPUTS, "class_probabilities") if seven else OUTPUTS,
        thresholds=policies.thresholds,
        calibration=calibration,
        probabilities=_quantiles(calibration.apply(_validated(run))),
        quality=limits,
        quality_notes=notes,
        image_quality=quality,
        metrics=RunFolder(run).metrics(),
        split_manifest_sha256=manifest_sha256(read_manifest(run)),
        training_images=_TRAINING_IMAGES_FILE,
        licence=_LICENCE,
        files={},
    )


def _validated(run: Path) -> npt.NDArray[np.float64]:
    """Probabilities before calibration of the images that the thresholds were chosen on, (n,)."""
    found: npt.NDArray[np.float64] = read_predictions(RunFolder(run).chosen_predictions())["probability"].to_numpy()
    return found


def _quality(inputs: npt.NDArray[np.uint8], size: int) -> tuple[QualityLimits, QualityNotes, ImageQuality]:
    """Limits of the quality gate, those of its notes, and the quantiles that they come from."""
    measures = [measure_quality(len(image), image) for image in inputs]
    values = {name: np.array([getattr(each, name) for each in measures]) for name in ImageQuality.model_fields}

    def beyond(name: str, end: float) -> float:
        """A limit between an extreme quantile of the training images and the end of the scale."""
        quantile = float(np.quantile(values[name], _QUALITY_QUANTILE if end == 0 else 1 - _QUALITY_QUANTILE))
        return end + _QUALITY_SHARE * (quantile - end)

    limits = QualityLimits(
        # With fewer pixels than the model's input, interpolation would invent detail.
        short_side=size,
        contrast=beyond("contrast", 0),
        sharpness=beyond("sharpness", 0),
        darkest=beyond("brightness", 0),
        brightest=beyond("brightness", 255),
        glare=beyond("glare", 1),
        frame=beyond("frame", 1),
    )
    low, high = ({name: float(np.quantile(values[name], at)) for name in values} for at in (_NOTED, 1 - _NOTED))
    notes = QualityNotes(
        contrast=low["contrast"],
        sharpness=low["sharpness"],
        darkest=low["brightness"],
        brightest=high["brightness"],
        glare=high["glare"],
        frame=high["frame"],
        hair=high["hair"],
    )
    return limits, notes, ImageQuality(**{name: _quantiles(each) for name, each in values.items()})


def _quantiles(values: npt.NDArray[np.float64]) -> dict[str, float]:
    return {str(quantile): float(np.quantile(values, quantile)) for quantile in _QUANTILES}


def _unsealed(folder: Path, manifest: BundleManifest) -> Bundle:
    """The bundle in the making, without hashes, for an engine to load."""
    return Bundle(folder=folder, sha256="", manifest=manifest)


def _check_parity(expected: npt.NDArray[np.float64], what: str, found: npt.NDArray[np.float64]) -> None:
    if (difference := parity(found, expected)) > PARITY_TOLERANCE:
        raise ExportError(
            f"On {len(expected)} real images the {what} probability differs from that of the Keras model by up to "
            f"{difference:.4f}, and at most {PARITY_TOLERANCE} is allowed. "
            "Nothing was written. Train again, or report this."
        )


def parity(found: npt.NDArray[np.float64], expected: npt.NDArray[np.float64]) -> float:
    """Greatest difference of a probability between what is exported and the Keras model, both (n,)."""
    return float(np.abs(found - expected).max())


def _expect_of_engine(folder: Path, manifest: BundleManifest) -> None:
    """Record the engine's own results for the reference images: in fewer bits they differ from those of Keras."""
    names = sorted(path.name for path in (folder / "reference").glob("*.png"))
    preprocessing = _unsealed(folder, manifest).preprocessing
    pictures = np.stack([preprocessing.load((folder / "reference" / name).read_bytes()) for name in names])
    found = dict(zip(names, _inferred(folder, manifest, pictures).tolist(), strict=True))
    write_expected(folder / "reference" / "expected-openvino.json", _unsealed(folder, manifest), found)


def _inferred(folder: Path, manifest: BundleManifest, inputs: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    engine = load_engine("openvino", _unsealed(folder, manifest), threads=available_cpus())
    return predict_in_batches(lambda part: engine.infer(part).probability, inputs)


def _to_probability(model: keras.Model) -> keras.Model:
    return keras.Model(model.input, model.output["probability"])
