"""Knowledge distillation: a run learns the mean output of other runs, its teachers, instead of the diagnoses.

Hinton et al., "Distilling the knowledge in a neural network", 2015. The teachers predict the same augmented and blended
image that the student gets (Beyer et al., "Knowledge distillation: a good teacher is patient and consistent", CVPR
2022). They were trained on the images themselves, but not on the blends.
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt

from trainer.augmentation.mixup import Floats
from trainer.config import RunConfig
from trainer.data.diagnoses import DIAGNOSES
from trainer.errors import RunError
from trainer.networks.heads import with_all_outputs
from trainer.run_folder import RunFolder
from trainer.run_records import Teacher
from trainer.training.balanced_batches import AugmentedBatches
from worker.images.opencv import cv2
from worker.inference.bundle import sha256_of

#: Takes a batch, and gives a teacher's outputs by name, as in `trainer.networks.heads.with_all_outputs`.
Predict = Callable[[npt.NDArray[np.uint8]], dict[str, npt.NDArray[np.float32]]]
#: The side of a teacher's input in pixels, and its predictions for (n, side, side, 3), uint8, RGB.
LoadedTeacher = tuple[int, Predict]
#: Probabilities keep this distance from 0 and 1, so that a very certain teacher does not outweigh the others.
_LEAST = 1e-4


def teacher_name(run: Path) -> str:
    """A teacher as the settings record it: the name of its folder and the SHA-256 of its model.

    Raises:
        RunError: the run has no model.
    """
    return f"{run.resolve().name} (SHA-256 {sha256_of(_model_of(run))})"


def describe_teacher(run: Path) -> Teacher:
    """What a run records about a teacher."""
    config = RunConfig.read(run)
    return Teacher(
        run=run.resolve().name,
        model_sha256=sha256_of(_model_of(run)),
        backbone=config.backbone,
        size=config.size,
        classes=config.classes,
    )


def load_teachers(runs: Sequence[Path], *, seven: bool) -> list[LoadedTeacher]:
    """The teachers' networks on OpenVINO, which is faster than Keras (benchmarks/engines.py).

    Args:
        runs: finished runs.
        seven: whether the student learns seven classes. Then at least one teacher must, too.

    Returns:
        One for each run, in their order.

    Raises:
        RunError: a run has no readable model, none knows seven classes where one must, one is given twice, or
            Keras' backend is not TensorFlow.
    """
    if not runs:
        return []
    digests = [sha256_of(_model_of(run)) for run in runs]
    if len(set(digests)) < len(digests):
        named = ", ".join(map(str, runs))
        raise RunError(f"Two of --teachers {named} have the same model. Name each once.")
    teachers = [_load(run) for run in runs]
    outputs = [predict(np.zeros((1, size, size, 3), np.uint8)) for size, predict in teachers]
    if seven and not any("class_probabilities" in each for each in outputs):
        raise RunError(
            "All --teachers were trained on two classes. With --classes seven, at least one must be trained on seven."
        )
    return teachers


def melanoma_against_nevus(outputs: Sequence[dict[str, npt.NDArray[np.float32]]]) -> Floats:
    """Probability of melanoma against nevus: the mean of the teachers' log-odds.

    Args:
        outputs: of each teacher, with ``probability`` (n, 1).

    Returns:
        (n, 1).
    """
    probabilities = np.stack([np.clip(each["probability"], _LEAST, 1 - _LEAST) for each in outputs])
    log_odds = np.log(probabilities / (1 - probabilities)).mean(axis=0)
    together: Floats = (1 / (1 + np.exp(-log_odds))).astype(np.float32)
    return together


def seven_classes(outputs: Sequence[dict[str, npt.NDArray[np.float32]]]) -> Floats:
    """Probabilities of the seven diagnoses.

    The teachers of seven classes give the mean of their probabilities. All teachers give the ratio of melanoma to nevus
    within that, as the mean of their log-odds.

    Args:
        outputs: of each teacher: ``probability`` (n, 1) of melanoma against nevus, and of at least one teacher
            ``class_probabilities`` (n, 7).

    Returns:
        (n, 7), rows with sum 1, in the order of `trainer.data.readers.ham10000.DIAGNOSES`.
    """
    classes = np.mean([each["class_probabilities"] for each in outputs if "class_probabilities" in each], axis=0)
    melanoma, nevus = DIAGNOSES.index("mel"), DIAGNOSES.index("nv")
    both, share = classes[:, melanoma] + classes[:, nevus], melanoma_against_nevus(outputs)[:, 0]
    classes[:, melanoma], classes[:, nevus] = both * share, both * (1 - share)
    taught: Floats = classes.astype(np.float32)
    return taught


class TaughtBatches(keras.utils.PyDataset):  # type: ignore[misc]
    """The images of other batches, with predictions of the teachers as labels.

    Args:
        batches: the labels of which are replaced.
        teachers: from `load_teachers`.
        seven: whether the student learns seven classes, or melanoma against nevus.
    """

    def __init__(self, batches: AugmentedBatches, teachers: Sequence[LoadedTeacher], *, seven: bool) -> None:
        super().__init__(workers=1, max_queue_size=4)
        self._batches, self._teachers = batches, teachers
        self._together = seven_classes if seven else melanoma_against_nevus

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> tuple[Floats, Floats]:
        """Batch ``index``: images (n, size, size, 3), whole numbers from 0 to 255; labels (n, 7) or (n, 1); float32."""
        images, _ = self._batches[index]
        pixels = np.rint(images).astype(np.uint8)
        labels = self._together([predict(_resized(pixels, size)) for size, predict in self._teachers])
        return pixels.astype(np.float32), labels

    def start(self, epoch: int) -> None:
        """Draw the images of an epoch."""
        self._batches.start(epoch)

    def on_epoch_end(self) -> None:
        """Draw the images of the next epoch."""
        self._batches.on_epoch_end()


def _model_of(run: Path) -> Path:
    model = RunFolder(run).model
    for needed in (model.name, "config.json", "split.csv"):
        if not (run / needed).is_file():
            raise RunError(
                f"--teachers {str(run)!r} has no {needed}. Name the folder of a "
                "finished run, and repeat --teachers for each."
            )
    return model


def _load(run: Path) -> LoadedTeacher:
    import openvino

    from trainer.networks.openvino_conversion import convert

    file = _model_of(run)
    try:
        model = with_all_outputs(keras.saving.load_model(file, compile=False))
    except (OSError, ValueError) as error:
        raise RunError(
            f"The {file.name} of --teachers {run} is damaged, or no classifier of "
            f"this trainer ({error}). Train that run again."
        ) from None
    size = int(model.input_shape[1])
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "model.xml"
        convert(model, target, size)
        # Both files are read into memory, because they are removed here.
        core = openvino.Core()
        network = core.read_model(target.read_bytes(), target.with_suffix(".bin").read_bytes())
    # With pinning, its threads and those of the training would share cores.
    compiled = core.compile_model(network, "CPU", {"ENABLE_CPU_PINNING": False, "PERFORMANCE_HINT": "LATENCY"})
    request = compiled.create_infer_request()
    names = [name for name in model.output if name in ("probability", "class_probabilities")]

    def predict(images: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float32]]:
        result = request.infer({0: images})
        return {name: np.array(result[name]) for name in names}

    return size, predict


def _resized(images: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    side = images.shape[1]
    if side == size:
        return images
    how = cv2.INTER_AREA if size < side else cv2.INTER_LINEAR
    return np.stack([cv2.resize(image, (size, size), interpolation=how) for image in images])
