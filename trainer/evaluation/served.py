"""The precision that a run is served in: its converted network, and the predictions that thresholds are chosen on.

Calibration and thresholds belong to the outputs of one precision. So a run that is to compute in 16 or 8 bits predicts
its validation images again in that precision, each fold with its own network, converted and quantised alike. The gate
is the area under the ROC curve and the sensitivity at equal specificity: the flags need not agree one by one.
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from trainer.config import RunConfig
from trainer.data.preprocessing import preprocessing_of
from trainer.data.resized_cache import load_inputs
from trainer.data.run_images import RunImages, read_images_of
from trainer.data.splits import TRAIN
from trainer.data.test_access_log import read_test_accesses
from trainer.errors import ExportError, MissingError, RunError
from trainer.evaluation.crossfit import folds_of
from trainer.metrics.precision_cost import compare_precisions, find_faults
from trainer.networks.converted import PredictOutputs, load_converted
from trainer.networks.heads import with_all_outputs
from trainer.networks.openvino_conversion import convert
from trainer.networks.predict import predict_by, traced
from trainer.networks.quantisation import CALIBRATION_IMAGES, quantise
from trainer.run_folder import RunFolder, read_predictions
from trainer.run_records import Served
from trainer.thresholds.policies import clinics_of, fit_policies
from worker.atomic_files import unfinished_folder, write_text
from worker.inference.precision import Precision, supports

#: Greatest difference of a probability between the converted and the Keras network on real images, in 32-bit floats.
PARITY_TOLERANCE = 0.005
#: Real images that parity is checked on.
_PARITY_IMAGES = 256


def serve(
    datasets: Sequence[Path], run: Path, precision: Precision, say: Callable[[str], None] = lambda line: None
) -> Served:
    """Convert a run's network to a precision, and predict its validation images in it.

    Writes the folder ``served``, ``validation-served.csv`` and, last, ``served.json``. Evaluation and export then use
    them.

    Args:
        datasets: folders of the data sets.
        run: a finished run with predictions of its own or of its folds, which lie beside it.
        precision: to compute with.
        say: called with a line about each step.

    Raises:
        MissingError: the run has no predictions, or a fold's folder is not beside it.
        RunError: the test split was accessed, after which nothing may be chosen.
        ExportError: this processor does not compute in the precision, the converted network differs from the Keras
            network, or the precision costs too much.
    """
    if not supports(precision):
        raise ExportError(
            f"This processor does not compute in {precision}. Serve {run} in float32, or on another machine."
        )
    folder, config = RunFolder(run), RunConfig.read(run)
    if not folder.predictions.is_file():
        raise MissingError(f"The run {run} has no {folder.predictions.name}. Run `dermq-train fit`, or `crossfit`.")
    if read_test_accesses(run):
        raise RunError(
            f"The precision of {run} cannot be chosen: its test split was accessed, and thresholds chosen now could "
            "depend on that."
        )
    before = read_predictions(folder.predictions)
    with folder.lock(), unfinished_folder(folder.served) as scratch:
        say(f"Converting the network to {precision}")
        layers = _convert(datasets, run, config, precision, scratch)
        if "fold" in before:
            parts = [_predict_fold(datasets, fold, precision, say) for fold in _folds_beside(run)]
            after = pd.concat(parts, ignore_index=True)
        else:
            say("Predicting the validation images")
            after = _predict(datasets, run, load_converted(scratch / "model.xml", precision))
        outputs = before[["image_id"]].merge(after, on="image_id", validate="one_to_one")["probability"].to_numpy()
        calibrated = before.assign(probability=outputs)
        thresholds = fit_policies(
            before["label"].to_numpy(),
            before["probability"].to_numpy(),
            before["lesion_id"].to_numpy(object),
            clinics_of(before),
        )[1].thresholds
        cost = compare_precisions(before, outputs, thresholds).model_copy(update={"layers": layers})
        if faults := find_faults(cost):
            raise ExportError(f"{precision} costs too much: {'; '.join(faults)}. Nothing was written.")
        # First, so that no description stands beside another network.
        folder.served_description.unlink(missing_ok=True)
        for name in ("model.xml", "model.bin"):
            folder.served.mkdir(exist_ok=True)
            (scratch / name).replace(folder.served / name)
        served = Served(precision=precision, cost=None if precision == "float32" else cost)
        write_text(folder.served_predictions, calibrated.to_csv(index=False))
        write_text(folder.served_description, served.model_dump_json(indent=2) + "\n")
        folder.log(f"served in {precision}")
    return served


def _convert(datasets: Sequence[Path], run: Path, config: RunConfig, precision: Precision, target: Path) -> int | None:
    """Write ``model.xml`` and ``model.bin`` of a run. Gives the number of layers in 8 bits, if any."""
    images = RunImages(datasets, run, config)
    plain = keras.saving.load_model(run / "model.keras", compile=False)
    network = with_all_outputs(plain)
    inputs = images.some_of(images.side_outside_test, _PARITY_IMAGES)
    expected = predict_by(traced(plain), inputs)
    for half in (True, False):
        # Weights of 16 bits are too coarse for some networks.
        convert(network, target / "model.xml", config.size, half=half)
        found = load_converted(target / "model.xml", "float32")(inputs)[:, 0]
        if (difference := float(np.abs(found - expected).max())) <= PARITY_TOLERANCE:
            break
    else:
        raise ExportError(
            f"On {len(inputs)} real images the probability of the converted network differs from that of the Keras "
            f"network by up to {difference:.4f}, and at most {PARITY_TOLERANCE} is allowed. Nothing was written."
        )
    if precision != "int8":
        return None
    return quantise(target / "model.xml", images.some_of(TRAIN, CALIBRATION_IMAGES))


def _predict_fold(
    datasets: Sequence[Path], fold: Path, precision: Precision, say: Callable[[str], None]
) -> pd.DataFrame:
    say(f"Converting {fold.name}, and predicting what it held out")
    with tempfile.TemporaryDirectory() as scratch:
        _convert(datasets, fold, RunConfig.read(fold), precision, Path(scratch))
        return _predict(datasets, fold, load_converted(Path(scratch) / "model.xml", precision))


def _predict(datasets: Sequence[Path], run: Path, network: PredictOutputs) -> pd.DataFrame:
    """Probabilities of the images that a run's ``validation.csv`` names."""
    names = read_predictions(RunFolder(run).predictions)[["image_id"]]
    paths = names.merge(read_images_of(run, datasets), on="image_id", validate="one_to_one")["path"]
    inputs = load_inputs([Path(path) for path in paths], preprocessing_of(RunConfig.read(run)))
    return names.assign(probability=network(inputs)[:, 0])


def _folds_beside(run: Path) -> list[Path]:
    """Folders of the runs that a run was cross-fitted with.

    Raises:
        MissingError: one is not beside the run, or holds other weights.
    """
    folders = []
    for fold in folds_of(run):
        folder = run.parent / fold.run
        if not RunFolder(folder).best.is_file() or RunFolder(folder).weights_sha256() != fold.weights_sha256:
            raise MissingError(
                f"The fold {fold.run} of {run} is not beside it with the weights that it was cross-fitted with. Its "
                "network must predict again, in the new precision: put its folder back."
            )
        folders.append(folder)
    return folders
