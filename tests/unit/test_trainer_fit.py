"""A whole training run on a made-up data set, with a network of three numbers in place of the real one."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from trainer.config import FitConfig
from trainer.ham10000 import COLUMNS, IMAGE_FOLDERS, METADATA_NAME
from trainer.splits import TEST, VALIDATION, read_manifest
from worker.images.made_up import draw_lesion
from worker.images.opencv import cv2

# Keras saves weights with `np.array(variable)`; TensorFlow's variables do not know the argument NumPy 2 then passes.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

LESIONS = 20
CONFIG = FitConfig(size=32, epochs=3, batch_size=8, warmup_epochs=0.5, learning_rate=1e-2)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten melanomas of one image each and ten nevi of two; melanomas are drawn atypical."""
    root = tmp_path_factory.mktemp("HAM10000")
    rows = []
    for folder in IMAGE_FOLDERS:
        (root / folder).mkdir()
    for lesion in range(LESIONS):
        melanoma = lesion % 2 == 1
        for image in range(1 if melanoma else 2):
            name = f"ISIC_{lesion:03}{image}"
            picture = draw_lesion(10 * lesion + image, width=64, height=48, atypical=melanoma)
            assert cv2.imwrite(
                str(root / IMAGE_FOLDERS[image] / f"{name}.jpg"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
            )
            known = {"lesion_id": f"HAM_{lesion:03}", "image_id": name, "dx": "mel" if melanoma else "nv"}
            rows.append(dict.fromkeys(COLUMNS, "") | known)
    pd.DataFrame(rows).to_csv(root / METADATA_NAME, index=False)
    return root


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The networks that runs of this test build: the mean colour, then one sigmoid."""
    # Here and not above: importing TensorFlow takes ten seconds, which only who runs these tests should wait for.
    import keras

    import trainer.fit
    from trainer.classifier import Classifier

    built: list[Any] = []

    def build(backbone: str, size: int) -> Any:
        inputs = keras.Input((size, size, 3))
        x = keras.layers.Rescaling(1 / 255)(inputs)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.GlobalAveragePooling2D()(x)
        model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(x), name=backbone)
        built.append(model)
        return Classifier(trained=model, scoring=model)

    monkeypatch.setattr(trainer.fit, "build_classifier", build)
    return built


def test_a_run_leaves_everything_that_the_next_steps_need(dataset: Path, tmp_path: Path, networks: list[Any]) -> None:
    import keras

    from trainer.canvas import load_inputs
    from trainer.fit import fit, predict
    from worker.images.preprocess import Preprocessing

    run = tmp_path / "run"
    best = fit(dataset, run, tmp_path / "cache", CONFIG)

    assert FitConfig.read(run) == CONFIG
    manifest = read_manifest(run)
    assert len(manifest) == 30
    with (run / "history.csv").open() as file:
        history = list(csv.DictReader(file))
    assert [row["epoch"] for row in history] == ["1", "2", "3"]
    assert max(float(row["validation_auc"]) for row in history) == pytest.approx(best, abs=1e-6)

    validation = pd.read_csv(run / "validation.csv")
    assert set(validation["image_id"]) == set(manifest.loc[manifest["split"] == VALIDATION, "image_id"])
    assert roc_auc_score(validation["label"], validation["probability"]) == pytest.approx(best)
    # A path of this machine has no place in a run that is handed on.
    assert str(dataset) not in (run / "validation.csv").read_text()

    # The saved model is the one that the probabilities came from.
    paths = [next(dataset.rglob(f"{name}.jpg")) for name in validation["image_id"]]
    saved = keras.saving.load_model(run / "model.keras", compile=False)
    assert np.allclose(predict(saved, load_inputs(paths, Preprocessing(size=32))), validation["probability"], atol=1e-6)


def test_the_best_epoch_is_kept_and_not_the_last(
    dataset: Path, tmp_path: Path, networks: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import trainer.fit

    aucs, predicted = iter([0.7, 0.9, 0.8]), []

    def auc(labels: np.ndarray, probabilities: np.ndarray) -> float:
        predicted.append(probabilities)
        return next(aucs)

    monkeypatch.setattr(trainer.fit, "roc_auc_score", auc)
    assert trainer.fit.fit(dataset, tmp_path / "run", tmp_path / "cache", CONFIG) == 0.9
    kept = pd.read_csv(tmp_path / "run" / "validation.csv")["probability"]
    assert np.allclose(kept, predicted[1], atol=1e-6)
    assert not np.allclose(kept, predicted[2], atol=1e-6)


def test_the_test_split_is_not_opened(
    dataset: Path, tmp_path: Path, networks: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import trainer.canvas
    from trainer.fit import fit

    opened: set[bytes] = set()
    decode = trainer.canvas.decode

    def watched(data: bytes) -> Any:
        opened.add(data)
        return decode(data)

    monkeypatch.setattr(trainer.canvas, "decode", watched)
    fit(dataset, tmp_path / "run", tmp_path / "cache", FitConfig(size=32, epochs=1, batch_size=8))
    manifest = read_manifest(tmp_path / "run")
    content = {path.stem: path.read_bytes() for path in dataset.rglob("*.jpg")}
    sealed = {content[name] for name in manifest.loc[manifest["split"] == TEST, "image_id"]}
    assert len(sealed) >= 3
    assert not sealed & opened
    assert opened == set(content.values()) - sealed


def test_the_same_settings_give_the_same_run(dataset: Path, tmp_path: Path, networks: list[Any]) -> None:
    from trainer.fit import fit

    for name in ("one", "two"):
        fit(dataset, tmp_path / name, tmp_path / "cache", CONFIG)
    assert (tmp_path / "one" / "split.csv").read_bytes() == (tmp_path / "two" / "split.csv").read_bytes()
    for file in ("history.csv", "validation.csv"):
        # The last digits are left out: TensorFlow's threads add in whatever order they finish.
        one, two = (pd.read_csv(tmp_path / name / file).select_dtypes("number") for name in ("one", "two"))
        assert np.allclose(one, two, atol=1e-5, equal_nan=True)


def test_the_loss_is_the_class_balanced_focal_loss(dataset: Path, tmp_path: Path, networks: list[Any]) -> None:
    """Lin et al., 2017: -alpha_t (1 - p_t)^gamma ln p_t, worked by hand for alpha 0.25 and gamma 2."""
    from trainer.fit import fit

    fit(dataset, tmp_path / "run", tmp_path / "cache", FitConfig(size=32, epochs=1, batch_size=8))
    (network,) = networks

    def loss(label: float, probability: float) -> float:
        return float(network.loss(np.array([[label]], np.float32), np.array([[probability]], np.float32)))

    # A melanoma at 0.7: 0.25 * 0.3^2 * 0.356675 = 0.00802519
    assert loss(1, 0.7) == pytest.approx(0.00802519, rel=1e-4)
    # A nevus at 0.7: 0.75 * 0.7^2 * 1.203973 = 0.442460
    assert loss(0, 0.7) == pytest.approx(0.442460, rel=1e-4)


def test_batch_normalisation_is_frozen_in_a_run(dataset: Path, tmp_path: Path, networks: list[Any]) -> None:
    from trainer.fit import fit

    fit(dataset, tmp_path / "run", tmp_path / "cache", FitConfig(size=32, epochs=1, batch_size=8))
    scale, shift, mean, variance = networks[0].layers[2].get_weights()
    for values, untouched in ((scale, 1), (shift, 0), (mean, 0), (variance, 1)):
        assert (values == untouched).all()


def test_a_limit_keeps_the_first_lesions_of_each_class_and_split(
    dataset: Path, tmp_path: Path, networks: list[Any]
) -> None:
    from trainer.fit import fit

    fit(dataset, tmp_path / "run", tmp_path / "cache", FitConfig(size=32, epochs=1, batch_size=2, limit=1))
    validation = pd.read_csv(tmp_path / "run" / "validation.csv")
    # One melanoma of one image, one nevus with both of its images.
    assert validation.groupby("label")["lesion_id"].nunique().to_dict() == {0: 1, 1: 1}
    assert validation["label"].value_counts().to_dict() == {0: 2, 1: 1}
    # The split itself is drawn from everything, whatever the limit.
    counts = json.loads((tmp_path / "run" / "split.json").read_text())["counts"]
    assert sum(side["lesions"] for side in counts.values()) == LESIONS
