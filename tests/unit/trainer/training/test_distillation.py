"""A run that other runs teach: what they say together, what the student is shown, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.unit.trainer.synthetic_ham10000 import write_dataset
from tests.unit.trainer.synthetic_run import changed
from trainer.config import RunConfig
from trainer.data.diagnoses import DIAGNOSES

pytestmark = [
    # Keras saves weights with `np.array(variable)`; TensorFlow's variables do not know the argument NumPy 2 passes.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
]

SIZE = 32
MEL, NV, BCC = (DIAGNOSES.index(dx) for dx in ("mel", "nv", "bcc"))
CONFIG = RunConfig(classes="seven", size=SIZE, epochs=1, samples_per_epoch=40, batch_size=8, warmup_epochs=0)


def distribution(**shares: float) -> npt.NDArray[np.float32]:
    return np.array([[shares.get(dx, 0) for dx in DIAGNOSES]], np.float32)


def test_melanoma_against_nevus_is_decided_by_all_and_the_rest_by_those_that_know_it() -> None:
    from trainer.training.distillation import seven_classes

    two = {"probability": np.array([[0.9]], np.float32)}
    seven = {
        "probability": np.array([[0.5]], np.float32),
        "class_probabilities": distribution(mel=0.3, nv=0.3, bcc=0.4),
    }
    (row,) = seven_classes([two, seven])
    # Odds of 9 and of 1 have 3 as their mean on the scale of logarithms: 0.75 of what melanoma and nevus have together.
    assert row[[MEL, NV, BCC]] == pytest.approx([0.45, 0.15, 0.4], abs=1e-6)
    assert row.sum() == pytest.approx(1)


def test_a_certain_teacher_does_not_outvote_the_others() -> None:
    from trainer.training.distillation import seven_classes

    certain, doubting = ({"probability": np.array([[p]], np.float32)} for p in (1.0, 0.1))
    known = {"probability": np.array([[0.1]], np.float32), "class_probabilities": distribution(mel=0.1, nv=0.9)}
    (row,) = seven_classes([certain, doubting, known])
    assert np.isfinite(row).all()
    # Mean of ln 9999, -ln 9 and -ln 9: 1.605.
    assert row[MEL] == pytest.approx(1 / (1 + np.exp(-1.6053)), abs=1e-4)


class Shown:
    """Teachers that note what they are shown."""

    def __init__(self, size: int, **outputs: Any) -> None:
        self.size, self.outputs = size, outputs
        self.images: list[npt.NDArray[np.uint8]] = []

    def __call__(self, images: npt.NDArray[np.uint8]) -> dict[str, Any]:
        assert images.dtype == np.uint8
        assert images.shape[1:] == (self.size, self.size, 3)
        self.images.append(images)
        return {name: np.repeat(value, len(images), axis=0) for name, value in self.outputs.items()}


def plain_batches() -> Any:
    from trainer.augmentation.augment import Augmentation
    from trainer.training.balanced_batches import ClassBalancedBatches

    rng = np.random.default_rng(3)
    return ClassBalancedBatches(
        rng.integers(0, 256, (14, SIZE, SIZE, 3), np.uint8),
        np.repeat(np.arange(7), 2),
        shares=[1 / 7] * 7,
        samples_per_epoch=14,
        size=SIZE,
        batch_size=5,
        seed=1,
        augmentation=Augmentation(),
        mixup_alpha=1.0,
    )


def test_teachers_are_asked_about_the_very_image_that_the_student_is_shown() -> None:
    from trainer.training.distillation import TaughtBatches

    said = distribution(mel=0.2, nv=0.6, bcc=0.2)
    same = Shown(SIZE, probability=np.array([[0.25]]), class_probabilities=said)
    smaller = Shown(8, probability=np.array([[0.25]]))
    taught = TaughtBatches(plain_batches(), [(SIZE, same), (8, smaller)], seven=True)
    assert len(taught) == 3
    images, labels = taught[1]
    assert images.dtype == labels.dtype == np.float32
    assert images.shape == (5, SIZE, SIZE, 3)
    assert np.array_equal(images, same.images[-1])
    assert smaller.images[-1].mean() == pytest.approx(images.mean(), abs=1)
    assert np.allclose(labels, said, atol=1e-6)
    # Blended and augmented as without teachers, an epoch like the next one but for its images.
    blended, _ = plain_batches()[1]
    assert np.abs(images - blended).max() <= 0.5
    taught.start(4)
    assert not np.array_equal(taught[1][0], images)
    taught.on_epoch_end()
    after_five = taught[0][0]
    taught.start(5)
    assert np.array_equal(taught[0][0], after_five)


def test_a_student_of_two_classes_learns_melanoma_against_nevus() -> None:
    from trainer.training.distillation import TaughtBatches

    teachers = [(SIZE, Shown(SIZE, probability=np.array([[p]]))) for p in (0.9, 0.5)]
    _, labels = TaughtBatches(plain_batches(), teachers, seven=False)[0]
    assert labels.shape == (5, 1)
    assert np.allclose(labels, 0.75, atol=1e-6)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("HAM10000"), melanomas=10, nevi=10, others=8)


@pytest.fixture(autouse=True)
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer of filters and seven logits, in place of the real network."""
    import keras

    import trainer.training.fit
    from trainer.networks.heads import Classifier

    def build(backbone: str, size: int, weights: str, weights_sha256: str) -> Any:
        inputs = keras.Input((size, size, 3))
        x = keras.layers.Rescaling(1 / 255)(inputs)
        base = keras.Model(inputs, keras.layers.Conv2D(4, 3, activation="relu")(x))
        logits = keras.layers.Dense(7, name="logits")(keras.layers.GlobalAveragePooling2D(name="features")(base.output))
        classes = keras.layers.Softmax()(logits)
        against = keras.layers.Dense(1, use_bias=False, activation="sigmoid", trainable=False, name="probability")
        scoring = keras.Model(inputs, against(logits), name=backbone)
        against.set_weights([np.array([[dx == "mel"] for dx in DIAGNOSES], np.float32) - np.eye(7)[:, [NV]]])
        return Classifier(trained=keras.Model(inputs, classes), scoring=scoring, backbone=base)

    monkeypatch.setattr(trainer.training.fit, "build_seven_class_classifier", build)


def test_a_student_learns_what_its_teacher_says_and_not_the_diagnoses(dataset: Path, tmp_path: Path) -> None:
    import keras
    import pandas as pd

    from trainer.card.training import how_trained
    from trainer.data.resized_cache import load_inputs
    from trainer.errors import RunError
    from trainer.networks.predict import predict
    from trainer.run_folder import RunFolder
    from trainer.training.distillation import load_teachers
    from trainer.training.fit import fit
    from worker.images.preprocess import Preprocessing

    teacher, cache = tmp_path / "teacher", tmp_path / "cache"
    fit([dataset], teacher, cache, CONFIG)
    # From here on it takes nearly everything for a melanoma, which nobody learns from the diagnoses.
    model = keras.saving.load_model(teacher / "model.keras", compile=False)
    kernel, bias = model.get_layer("logits").get_weights()
    model.get_layer("logits").set_weights([kernel, bias + 3 * np.eye(7)[MEL]])
    model.save(teacher / "model.keras")

    ((size, says),) = load_teachers([teacher], seven=True)
    images = np.random.default_rng(1).integers(0, 256, (4, SIZE, SIZE, 3), np.uint8)
    assert size == SIZE
    # On processors that have them OpenVINO computes with floats of 16 bits.
    assert np.allclose(says(images)["probability"], model(images.astype(np.float32)), atol=0.02)

    taught = changed(
        CONFIG, teachers=(str(teacher),), samples_per_epoch=400, ema_momentum=0, learning_rate=3e-2, mixup=1.0, seed=2
    )
    student = tmp_path / "student"
    fit([dataset], student, cache, taught)
    predicted = pd.read_csv(student / "validation.csv")
    paths = [next(dataset.rglob(f"{name}.jpg")) for name in predicted["image_id"]]
    of_teacher = predict(model, load_inputs(paths, Preprocessing(size=SIZE)))
    assert of_teacher.min() > 0.9
    assert np.abs(predicted["probability"] - of_teacher).max() < 0.1

    recorded = RunConfig.read(student)
    described = json.loads((student / "run.json").read_text())["teachers"]
    assert [each["run"] for each in described] == ["teacher"]
    assert recorded.teachers == (f"teacher (SHA-256 {described[0]['model_sha256']})",)
    assert (described[0]["size"], described[0]["classes"]) == (SIZE, "seven")

    told = how_trained(RunFolder(student).origin())
    digest = described[0]["model_sha256"][:12]
    assert f"teachers: efficientnet-lite0 at {SIZE} pixels, seven classes (teacher, SHA-256 {digest}…)), images" in told
    assert "smoothing" not in told

    with pytest.raises(RunError, match="is a run of another split"):
        fit([dataset], tmp_path / "other", cache, changed(taught, split_seed=7))
    # What is refused leaves the folder free for the command that is right.
    assert not (tmp_path / "other" / "config.json").exists()
    shutil.copytree(teacher, tmp_path / "copy")
    with pytest.raises(RunError, match="have the same model"):
        fit([dataset], tmp_path / "other", cache, changed(taught, teachers=(str(teacher), str(tmp_path / "copy"))))
    whole = (teacher / "model.keras").read_bytes()
    (teacher / "model.keras").write_bytes(whole[:1000])
    with pytest.raises(RunError, match=r"The model\.keras of --teachers .* is damaged"):
        fit([dataset], tmp_path / "other", cache, taught)
    (teacher / "model.keras").unlink()
    with pytest.raises(RunError, match=r"has no model\.keras"):
        fit([dataset], tmp_path / "other", cache, taught)
    (tmp_path / "copy" / "split.csv").unlink()
    with pytest.raises(RunError, match=r"has no split\.csv"):
        fit([dataset], tmp_path / "other", cache, changed(taught, teachers=(str(tmp_path / "copy"),)))
    assert not (tmp_path / "other" / "config.json").exists()


def test_teachers_of_two_classes_cannot_teach_seven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import trainer.training.distillation
    from trainer.errors import RunError

    for needed in ("model.keras", "config.json", "split.csv"):
        (tmp_path / needed).write_text("")
    monkeypatch.setattr(
        trainer.training.distillation, "_load", lambda _: (SIZE, Shown(SIZE, probability=np.array([[0.25]])))
    )
    with pytest.raises(RunError, match="at least one must be trained on seven"):
        trainer.training.distillation.load_teachers([tmp_path], seven=True)
    assert len(trainer.training.distillation.load_teachers([tmp_path], seven=False)) == 1
