"""Folds that each predict what they have not seen, and the run that was trained on all of it."""

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from tests.unit.trainer.synthetic_ham10000 import write_dataset
from tests.unit.trainer.synthetic_run import changed
from trainer.config import RunConfig
from trainer.data.readers.ham10000 import METADATA_NAME
from trainer.data.splits import TEST, TRAIN, VALIDATION, read_manifest
from trainer.errors import RunError
from trainer.thresholds.calibration import fit_platt
from trainer.thresholds.threshold import youden_threshold
from worker.images.opencv import cv2
from worker.inference.metrics import LesionsCaught

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

CONFIG = RunConfig(
    size=32,
    epochs=6,
    batch_size=4,
    warmup_epochs=0,
    learning_rate=0.1,
    ema_momentum=0,
    weight_decay=0,
    checkpoint="last",
)
FOLDS = ("1/2", "2/2")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_dataset(tmp_path_factory.mktemp("HAM10000"), melanomas=20, nevi=20, images=2)
    rows = pd.read_csv(root / METADATA_NAME)
    for name in rows.loc[rows["dx"] == "mel", "image_id"]:
        # Darker, most of them, so that the mean colour tells something and not all.
        if int(name[-2]) % 5:
            path = next(root.rglob(f"{name}.jpg"))
            assert cv2.imwrite(str(path), cv2.imread(str(path)) // 2)
    return root


@pytest.fixture(scope="module", autouse=True)
def small_networks() -> Iterator[None]:
    """The mean colour, then one sigmoid, in place of the real network."""
    import keras

    import trainer.training.fit
    from trainer.networks.heads import Classifier

    def build(backbone: str, size: int, weights: str, weights_sha256: str) -> Any:
        inputs = keras.Input((size, size, 3))
        base = keras.Model(inputs, keras.layers.Rescaling(1 / 255)(inputs))
        x = keras.layers.GlobalAveragePooling2D(name="features")(base.output)
        model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(x), name=backbone)
        return Classifier(trained=model, scoring=keras.Model(inputs, model.output), backbone=base)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.training.fit, "build_classifier", build)
        yield


def train(dataset: Path, run: Path, **settings: Any) -> float:
    from trainer.training.fit import fit

    return fit([dataset], run, run.parent / "cache", changed(CONFIG, **settings))


@pytest.fixture(scope="module")
def runs(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run for each fold, and one for all of them, not cross-fitted."""
    root = tmp_path_factory.mktemp("runs")
    found = {}
    for number, fold in enumerate((*FOLDS, "all")):
        found[fold] = root / f"run-{number}"
        auc = train(dataset, found[fold], fold=fold)
        assert math.isnan(auc) == (fold == "all")
    return found


@pytest.fixture
def whole(runs: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the run for all folds, which a test may cross-fit."""
    return Path(shutil.copytree(runs["all"], tmp_path / "all"))


def of_folds(runs: dict[str, Path]) -> list[Path]:
    return [runs[fold] for fold in FOLDS]


def test_a_run_on_all_ends_without_validation(dataset: Path, runs: dict[str, Path]) -> None:
    from trainer.run_folder import RunFolder

    run = runs["all"]
    assert set(read_manifest(run)["split"]) == {TRAIN, TEST}
    assert (run / "model.keras").is_file()
    assert not (run / "validation.csv").exists()
    assert pd.read_csv(run / "history.csv")["validation_auc"].isna().all()
    assert (run / "curves.png").stat().st_size > 5000
    assert "AUC" not in (run / "train.log").read_text()
    assert RunFolder(run).finished
    with pytest.raises(FileExistsError, match="holds a finished run"):
        train(dataset, run, fold="all")


def test_ood_statistics_and_their_limit_are_of_different_lesions(
    dataset: Path, runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no validation side for the limit, and images of one lesion look alike."""
    from trainer.data.run_images import RunImages

    monkeypatch.setattr(RunImages, "_load", lambda self, paths: paths)
    halves = RunImages([dataset], runs["all"], RunConfig.read(runs["all"])).of_every_diagnosis(1000)
    # The last digit of a name here is the number of the image of its lesion.
    first, second = ({Path(path).stem[:-1] for path in half} for half in halves)
    assert not first & second
    assert abs(len(first) - len(second)) <= 1
    manifest = read_manifest(runs["all"])
    assert sum(map(len, halves)) == (manifest["split"] == TRAIN).sum()


def test_it_is_not_evaluated_before_it_is_cross_fitted(dataset: Path, runs: dict[str, Path]) -> None:
    from trainer.evaluation.robustness_of_run import robustness_on_validation
    from trainer.evaluation.trained_run import load_trained_run

    with pytest.raises(
        FileNotFoundError, match=r"no validation images .* to choose thresholds on\. Run .*crossfit .*run-2"
    ):
        load_trained_run(runs["all"])
    with pytest.raises(RunError, match="no validation images"):
        robustness_on_validation([dataset], runs["all"])


def test_every_image_outside_test_is_predicted_by_the_run_that_left_it_out(runs: dict[str, Path], whole: Path) -> None:
    from trainer.evaluation.crossfit import crossfit

    crossfit(whole, of_folds(runs))
    found = pd.read_csv(whole / "validation.csv").set_index("image_id")
    manifest = read_manifest(whole)
    assert set(found.index) == set(manifest.loc[manifest["split"] == TRAIN, "image_id"])
    for fold in FOLDS:
        theirs = read_manifest(runs[fold])
        held_out = theirs.loc[theirs["split"] == VALIDATION, "image_id"]
        assert set(found.index[found["fold"] == fold]) == set(held_out)
        said = pd.read_csv(runs[fold] / "validation.csv").set_index("image_id")["probability"]
        assert np.allclose(found.loc[said.index, "probability"], said)
    noted = json.loads((whole / "folds.json").read_text())
    assert [(entry["run"], entry["fold"], entry["seed"]) for entry in noted] == [
        ("run-0", "1/2", 1),
        ("run-1", "2/2", 1),
    ]


def test_figures_are_of_thresholds_that_were_chosen_on_the_other_folds(runs: dict[str, Path], whole: Path) -> None:
    from trainer.evaluation.crossfit import crossfit

    # In whatever order they are given.
    found = crossfit(whole, of_folds(runs)[::-1])
    images = pd.read_csv(whole / "validation.csv")
    caught, calibrated = 0, pd.Series(0.0, index=images.index)
    for fold in FOLDS:
        here, other = images["fold"] == fold, images[images["fold"] != fold]
        labels, raw = other["label"].to_numpy(), other["probability"].to_numpy()
        calibration = fit_platt(labels, raw)
        calibrated[here] = calibration.apply(images.loc[here, "probability"].to_numpy())
        threshold = youden_threshold(labels, calibration.apply(raw))
        caught += int(((calibrated >= threshold) & here & (images["label"] == 1)).sum())
    assert found.policies["youden"].sensitivity.value == pytest.approx(caught / images["label"].sum())
    assert found.policies["youden"].by_lesion == LesionsCaught(caught=caught, lesions=17), "each has one image"
    assert found.auroc.value == pytest.approx(roc_auc_score(images["label"], calibrated))
    areas = [roc_auc_score(part["label"], part["probability"]) for _, part in images.groupby("fold")]
    assert [fold.auroc for fold in found.folds] == pytest.approx(areas)
    assert found.mean_auroc == pytest.approx(np.mean(areas))
    assert found.counts.images.melanoma == images["label"].sum()


def test_the_fitted_thresholds_are_those_of_all_folds(runs: dict[str, Path], whole: Path) -> None:
    from trainer.evaluation.crossfit import crossfit
    from trainer.evaluation.trained_run import load_trained_run
    from trainer.thresholds.policies import fit_policies

    crossfit(whole, of_folds(runs))
    images = pd.read_csv(whole / "validation.csv")
    calibration, policies = fit_policies(
        images["label"].to_numpy(), images["probability"].to_numpy(), images["lesion_id"].to_numpy(object)
    )
    frozen = load_trained_run(whole)
    assert frozen.calibration == calibration
    assert frozen.thresholds == policies.thresholds


def test_what_does_not_belong_together_is_refused(dataset: Path, runs: dict[str, Path], whole: Path) -> None:
    from trainer.evaluation.crossfit import crossfit

    first, second = of_folds(runs)
    for given, why in (
        ([first], r"folds 1/2; 2/2 is missing\. Name one run of each fold"),
        ([first, first], r"both held out fold 1/2\. Name one run of each fold"),
        ([first, whole.parent / "nowhere"], r"nowhere cannot be used as a fold: it does not exist"),
        ([first, whole.parent], r"as a fold: it is no run"),
        ([first, second, whole], r"has --fold 'all'\. Name runs that held a fold out"),
    ):
        with pytest.raises(RunError, match=why):
            crossfit(whole, given)
    with pytest.raises(RunError, match=r"it held out fold 1/2\. Name the run of .* fit --fold all` first"):
        crossfit(first, [first, second])
    longer = whole.parent / "longer"
    train(dataset, longer, fold="2/2", epochs=7)
    with pytest.raises(RunError, match=r"longer differs from .* in epochs\. Only"):
        crossfit(whole, [first, longer])
    other = whole.parent / "other"
    train(dataset, other, fold="2/2", split_seed=7)
    with pytest.raises(RunError, match="in split_seed"):
        crossfit(whole, [first, other])
    assert not (whole / "validation.csv").exists()
    assert not (whole / "folds.json").exists()
    crossfit(whole, [first, second])
    with pytest.raises(FileExistsError, match=r"already cross-fitted\. .*remove validation\.csv"):
        crossfit(whole, [first, second])


def test_an_unfinished_fold_is_refused(runs: dict[str, Path], whole: Path, tmp_path: Path) -> None:
    from trainer.evaluation.crossfit import crossfit

    unfinished = Path(shutil.copytree(runs["1/2"], tmp_path / "unfinished"))
    (unfinished / "validation.csv").unlink()
    with pytest.raises(RunError, match=r"unfinished cannot be used as a fold: it is not finished"):
        crossfit(whole, [unfinished, runs["2/2"]])


@pytest.mark.parametrize("change", [lambda rows: rows.iloc[1:], lambda rows: pd.concat((rows, rows.iloc[:1]))])
def test_each_image_is_predicted_once(runs: dict[str, Path], whole: Path, tmp_path: Path, change: Any) -> None:
    from trainer.evaluation.crossfit import crossfit

    changed = Path(shutil.copytree(runs["1/2"], tmp_path / "changed"))
    change(pd.read_csv(changed / "validation.csv")).to_csv(changed / "validation.csv", index=False)
    with pytest.raises(RunError, match=r"\d+ predictions of the run .*changed are not those of the \d+ melanoma"):
        crossfit(whole, [changed, runs["2/2"]])
    assert not (whole / "folds.json").exists()


def test_folds_of_another_division_are_refused(dataset: Path, runs: dict[str, Path], whole: Path) -> None:
    """As another version of scikit-learn might divide them."""
    import trainer.data.splits
    from trainer.evaluation.crossfit import crossfit

    other = whole.parent / "divided-otherwise"
    with pytest.MonkeyPatch.context() as patch:
        divide = trainer.data.splits.hold_out_fold
        patch.setattr(
            trainer.data.splits, "hold_out_fold", lambda split, frame, fold, seed: divide(split, frame, fold, 5)
        )
        train(dataset, other, fold="2/2")
    with pytest.raises(RunError, match=r"the same version of scikit-learn"):
        crossfit(whole, [runs["1/2"], other])


def test_thresholds_are_not_chosen_after_the_test_split_was_accessed(runs: dict[str, Path], whole: Path) -> None:
    from trainer.data.test_access_log import log_test_access
    from trainer.evaluation.crossfit import crossfit

    log_test_access(whole, "evaluate")
    with pytest.raises(RunError, match="its test split was accessed"):
        crossfit(whole, of_folds(runs))


def test_a_fold_does_not_access_the_test_split(dataset: Path, runs: dict[str, Path]) -> None:
    """It is the test split of the run on all."""
    from trainer.data.test_access_log import read_test_accesses
    from trainer.evaluation.of_run import evaluate

    with pytest.raises(RunError, match=r"holds out fold 1/2\. Evaluate the run with --fold all"):
        evaluate([dataset], runs["1/2"])
    assert not read_test_accesses(runs["1/2"])


def test_folds_that_tell_nothing_apart_leave_the_run_as_it_is(runs: dict[str, Path], whole: Path) -> None:
    from trainer.evaluation.crossfit import crossfit

    by_chance = []
    for fold in of_folds(runs):
        copy = Path(shutil.copytree(fold, whole.parent / fold.name))
        predicted = pd.read_csv(copy / "validation.csv")
        # Nearly the same for both classes.
        of_class = predicted.groupby("label")["label"]
        spread = of_class.cumcount() / of_class.transform("size")
        predicted["probability"] = 0.3 + 0.4 * spread + 0.02 * predicted["label"]
        predicted.to_csv(copy / "validation.csv", index=False)
        by_chance.append(copy)
    with pytest.raises(RunError, match=r"under the ROC curve of 0\.\d+ \(0\.[234].*may be no better than chance"):
        crossfit(whole, by_chance)
    assert not (whole / "folds.json").exists()


def test_an_unfinished_run_is_neither_cross_fitted_nor_continued_from(
    dataset: Path, runs: dict[str, Path], whole: Path
) -> None:
    from trainer.errors import WeightsError
    from trainer.evaluation.crossfit import crossfit

    (whole / "model.keras").unlink()
    with pytest.raises(RunError, match="is not finished"):
        crossfit(whole, of_folds(runs))
    with pytest.raises(WeightsError, match="is not finished, and with --fold all it must be"):
        train(dataset, whole.parent / "further", fold="all", seed=2, weights=str(whole))


def test_folds_go_on_from_folds_and_their_recipe_is_compared_at_every_step(
    dataset: Path, runs: dict[str, Path], tmp_path: Path
) -> None:
    from trainer.errors import WeightsError
    from trainer.evaluation.crossfit import crossfit

    with pytest.raises(WeightsError, match="is a run of another split"):
        train(dataset, tmp_path / "leak", fold="2/2", seed=2, weights=str(runs["1/2"]))
    further = {}
    for fold in (*FOLDS, "all"):
        further[fold] = tmp_path / f"further-{fold[0]}"
        train(dataset, further[fold], fold=fold, seed=2, weights=str(runs[fold]))
    with pytest.raises(RunError, match="in the runs that it continues from"):
        crossfit(further["all"], [further["1/2"], runs["2/2"]])
    found = crossfit(further["all"], [further[fold] for fold in FOLDS])
    assert len(found.folds) == 2


@pytest.mark.parametrize("fold", ["3/2", "0/2", "1/1", "one", "1/", "-1/2", "ALL"])
def test_a_fold_is_one_of_several(fold: str) -> None:
    with pytest.raises(ValueError, match=r"is no fold\. Write K/N"):
        changed(CONFIG, fold=fold)


def test_an_epoch_is_not_chosen_on_the_fold_that_is_held_out() -> None:
    with pytest.raises(ValueError, match=r"needs --checkpoint last: .* has seen them"):
        changed(CONFIG, fold="1/2", checkpoint="best")
    with pytest.raises(ValueError, match=r"--checkpoint last.* no image is held out"):
        changed(CONFIG, fold="all", checkpoint="best")
    with pytest.raises(ValueError, match="a fold holds whole lesions"):
        changed(CONFIG, fold="1/2", split="random-images")
