"""Knowledge distillation: a run is taught what other runs say together, in place of the diagnoses.

Hinton et al., "Distilling the knowledge in a neural network", 2015. The teachers are asked about the very image that
the student is shown, augmented and blended (Beyer et al., "Knowledge distillation: a good teacher is patient and
consistent", CVPR 2022): of the training images themselves they know the diagnosis by heart, of a blend they do not.
"""

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from trainer.augmentation.mixup import Floats
from trainer.data.ham10000 import DIAGNOSES
from trainer.networks.heads import with_all_outputs
from trainer.run_folder import RunError, RunFolder
from trainer.training.balanced_batches import AugmentedBatches
from worker.images.opencv import cv2
from worker.inference.bundle import sha256_of

#: What a teacher says of a batch: its outputs by name, as in `trainer.networks.heads.with_all_outputs`.
Says = Callable[[npt.NDArray[np.uint8]], dict[str, npt.NDArray[np.float32]]]
#: The side of a teacher's input in pixels, and what it says of (n, side, side, 3), uint8, RGB.
Teacher = tuple[int, Says]
#: Probabilities are kept this far from 0 and 1, that one teacher's certainty does not outvote the others.
_LEAST = 1e-4


def teacher_name(run: Path) -> str:
    """A teacher as the settings record it: the name of its folder and the SHA-256 of its model.

    Raises:
        RunError: the run has no model.
    """
    return f"{run.resolve().name} (SHA-256 {sha256_of(_model_of(run))})"


def describe_teacher(run: Path) -> dict[str, Any]:
    """What ``run.json`` notes of a teacher: ``run``, ``model_sha256``, and its settings as it recorded them."""
    settings = json.loads((run / "config.json").read_text())
    return {"run": run.resolve().name, "model_sha256": sha256_of(_model_of(run)), "config": settings}


def load_teachers(runs: Sequence[Path], *, seven: bool) -> list[Teacher]:
    """The teachers' networks, on OpenVINO as in service, which is faster than Keras (benchmarks/engines.py).

    Args:
        runs: finished runs, of whichever version and settings.
        seven: whether the student learns seven classes, which then one of them must know.

    Returns:
        One for each run, in their order.

    Raises:
        RunError: a run has no model that can be read, none knows seven classes where one must, one is given twice, or
            Keras' backend is not TensorFlow.
    """
    if not runs:
        return []
    digests = [sha256_of(_model_of(run)) for run in runs]
    if len(set(digests)) < len(digests):
        named = ", ".join(map(str, runs))
        raise RunError(f"Received: --teachers {named}, two of which have the same model. Expected: each model once.")
    teachers = [_load(run) for run in runs]
    said = [says(np.zeros((1, size, size, 3), np.uint8)) for size, says in teachers]
    if seven and not any("class_probabilities" in each for each in said):
        raise RunError(
            "Received: --teachers that were all trained on two classes. Expected: at least one of seven classes, for a "
            "student of seven."
        )
    return teachers


def melanoma_against_nevus(said: Sequence[dict[str, npt.NDArray[np.float32]]]) -> Floats:
    """Probability of melanoma against nevus by the mean of the teachers' log-odds.

    Args:
        said: outputs of each teacher, of which ``probability``, (n, 1), is looked at.

    Returns:
        (n, 1).
    """
    probabilities = np.stack([np.clip(each["probability"], _LEAST, 1 - _LEAST) for each in said])
    log_odds = np.log(probabilities / (1 - probabilities)).mean(axis=0)
    together: Floats = (1 / (1 + np.exp(-log_odds))).astype(np.float32)
    return together


def seven_classes(said: Sequence[dict[str, npt.NDArray[np.float32]]]) -> Floats:
    """Probabilities of the seven diagnoses.

    How melanoma and nevus share their part is decided by all, as the mean of their log-odds; how large that part is
    and what the other five have, by those that know seven classes, as the mean of their probabilities.

    Args:
        said: outputs of each teacher: ``probability`` (n, 1) of melanoma against nevus, and of at least one
            ``class_probabilities`` (n, 7).

    Returns:
        (n, 7), rows adding up to 1, in the order of `trainer.data.ham10000.DIAGNOSES`.
    """
    classes = np.mean([each["class_probabilities"] for each in said if "class_probabilities" in each], axis=0)
    melanoma, nevus = DIAGNOSES.index("mel"), DIAGNOSES.index("nv")
    both, share = classes[:, melanoma] + classes[:, nevus], melanoma_against_nevus(said)[:, 0]
    classes[:, melanoma], classes[:, nevus] = both * share, both * (1 - share)
    taught: Floats = classes.astype(np.float32)
    return taught


class TaughtBatches(keras.utils.PyDataset):  # type: ignore[misc]
    """The images of other batches, with what the teachers say of them for labels.

    Args:
        batches: whose labels are replaced.
        teachers: from `load_teachers`; for a student of seven classes at least one that knows them.
        seven: whether the student learns seven classes, or melanoma against nevus.
    """

    def __init__(self, batches: AugmentedBatches, teachers: Sequence[Teacher], *, seven: bool) -> None:
        super().__init__(workers=1, max_queue_size=4)
        self._batches, self._teachers = batches, teachers
        self._together = seven_classes if seven else melanoma_against_nevus

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> tuple[Floats, Floats]:
        """Batch ``index``: images (n, size, size, 3), whole numbers from 0 to 255; labels (n, 7) or (n, 1); float32."""
        images, _ = self._batches[index]
        pixels = np.rint(images).astype(np.uint8)
        labels = self._together([says(_resized(pixels, size)) for size, says in self._teachers])
        return pixels.astype(np.float32), labels

    def start(self, epoch: int) -> None:
        """As `trainer.training.balanced_batches.AugmentedBatches.start`."""
        self._batches.start(epoch)

    def on_epoch_end(self) -> None:
        """As `trainer.training.balanced_batches.AugmentedBatches.on_epoch_end`."""
        self._batches.on_epoch_end()


def _model_of(run: Path) -> Path:
    model = RunFolder(run).model
    for needed in (model.name, "config.json", "split.csv"):
        if not (run / needed).is_file():
            raise RunError(
                f"Received: --teachers {str(run)!r}, a folder without {needed}. Expected: the folder of a run that "
                "`dermq-train fit` has finished; give --teachers once for each."
            )
    return model


def _load(run: Path) -> Teacher:
    import openvino

    from trainer.networks.openvino_conversion import convert

    file = _model_of(run)
    try:
        model = with_all_outputs(keras.saving.load_model(file, compile=False))
    except (OSError, ValueError) as error:
        raise RunError(
            f"Received: --teachers {run}, whose {file.name} cannot be read as a classifier of this trainer's "
            f"({error}). Expected: the file that `dermq-train fit` wrote; train that run again if it is damaged."
        ) from None
    size = int(model.input_shape[1])
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "model.xml"
        convert(model, target, size)
        # Both files into memory: they are gone when the batches are made.
        core = openvino.Core()
        network = core.read_model(target.read_bytes(), target.with_suffix(".bin").read_bytes())
    # Pinned, its threads and those of the training land on the same cores.
    compiled = core.compile_model(network, "CPU", {"ENABLE_CPU_PINNING": False, "PERFORMANCE_HINT": "LATENCY"})
    request = compiled.create_infer_request()
    names = [name for name in model.output if name in ("probability", "class_probabilities")]

    def says(images: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float32]]:
        result = request.infer({0: images})
        return {name: np.array(result[name]) for name in names}

    return size, says


def _resized(images: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    side = images.shape[1]
    if side == size:
        return images
    how = cv2.INTER_AREA if size < side else cv2.INTER_LINEAR
    return np.stack([cv2.resize(image, (size, size), interpolation=how) for image in images])
