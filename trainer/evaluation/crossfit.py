"""Calibration and thresholds for a run that was trained on every image outside test, from runs that left a fold out.

Such a run has no image left that it has not seen. Runs of the same recipe have: each predicts the fold that it was not
trained on, and together they predict every image outside test. The choices are made on these predictions and serve the
run that was trained on all, as in `sklearn.calibration.CalibratedClassifierCV` with ``ensemble=False``.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from trainer.config import ALL_FOLDS, RunConfig, fold_and_folds
from trainer.data.ham10000 import LABELS
from trainer.data.splits import TRAIN, VALIDATION, read_manifest
from trainer.evaluation.test_access_log import read_test_accesses
from trainer.metrics.assess import counts
from trainer.metrics.cross_fitting import describe_cross_fit, predict_by_folds
from trainer.metrics.discrimination import CHANCE, auroc
from trainer.metrics.seeds import recipe_differences
from trainer.metrics.subgroups import as_json
from trainer.report.document import interval
from trainer.run_folder import RunError, RunFolder
from trainer.thresholds.bootstrap import LesionBootstrap
from trainer.thresholds.calibration import fit_platt
from trainer.thresholds.policies import BOOTSTRAP_SEED
from worker.atomic_files import write_text


def crossfit(run: Path, folds: Sequence[Path]) -> dict[str, Any]:
    """Give a run that was trained on everything outside test the predictions of others, so that it can be evaluated.

    Writes ``folds.json`` and, last, ``validation.csv`` into the run folder.

    Args:
        run: a finished run of the fold ``all``.
        folds: finished runs of the same recipe, one for each fold.

    Returns:
        As `describe_crossfit`.

    Raises:
        FileExistsError: the run has predictions already.
        RunError: a run is not finished or of the wrong fold, a fold is missing or there twice, the runs do not belong
            together, have learned nothing, or the test split of the run was opened.
        ValueError: the outputs of the folds rank melanomas below nevi.
    """
    folder = RunFolder(run)
    if not folder.begun or RunConfig.read(run).has_validation:
        raise RunError(
            f"Received: {run} as the run to cross-fit, which {_what_it_is(run)}. Expected: a run after `dermq-train "
            f"fit --fold {ALL_FOLDS}` first, and the folds after it."
        )
    if not folder.finished:
        raise RunError(f"Received: run {run}, which is not finished. Expected: a run after `dermq-train fit`.")
    if read_test_accesses(run):
        raise RunError(
            f"Received: run {run}, whose test split was opened. Expected: one whose test split is sealed, for "
            "thresholds that are chosen afterwards may be chosen by it. It stays as it is (put its "
            f"{folder.predictions.name} back if it was moved); to choose anew, train anew."
        )
    if folder.predictions.exists():
        raise FileExistsError(
            f"Received: run {run}, which was cross-fitted already. Expected: one that was not. It has not been "
            f"evaluated yet: to do it again, remove {folder.predictions.name} from its folder."
        )
    ordered = _in_order(folds)
    for fold in ordered:
        _check(fold, run)
    predictions = pd.concat([_predictions(fold) for fold in ordered], ignore_index=True).sort_values("image_id")
    _check_whole(predictions, run)
    described = [_describe(fold) for fold in ordered]
    # Before anything is written: folds that have learned nothing leave the run as it is.
    found = _of_all_folds(predictions, described)
    if (low := found["auroc"]["low"]) is not None and low <= CHANCE:
        raise RunError(
            f"Received: folds whose area under the ROC curve together is {interval(found['auroc'])}, perhaps no better "
            "than chance, which no threshold mends. Expected: a recipe that learns; train longer, or with more lesions."
        )
    with folder.lock():
        write_text(run / "folds.json", json.dumps(described, indent=2) + "\n")
        folder.log(f"cross-fitted with {', '.join(fold['run'] for fold in described)}")
        write_text(folder.predictions, predictions.to_csv(index=False))
    return found


def folds_of(run: Path) -> list[dict[str, Any]]:
    """The runs that a run was cross-fitted with, by name, fold, seed and SHA-256 of weights; empty for none."""
    file = run / "folds.json"
    found: list[dict[str, Any]] = json.loads(file.read_text()) if file.is_file() else []
    return found


def describe_crossfit(run: Path) -> dict[str, Any]:
    """What the recipe gives on the lesions outside test, each predicted by a network that was not trained on it.

    Calibration and thresholds that a fold is subject by are those of the other folds. That is no nested
    cross-validation: the networks whose predictions they were fitted on were trained on this fold, by which its figures
    owe a little to it, and the intervals leave out that other trainings would differ.

    Args:
        run: the folder of a cross-fitted run.

    Returns:
        ``folds`` (of each ``run``, ``fold``, ``seed``, ``weights_sha256``, ``counts``, ``auroc``, and ``calibration``:
        slope and intercept fitted on it alone), ``mean_auroc`` of these, ``counts`` and ``auroc`` of all images
        together, and what `trainer.metrics.cross_fitting.describe_cross_fit` gives.
    """
    return _of_all_folds(pd.read_csv(RunFolder(run).predictions), folds_of(run))


def _of_all_folds(predictions: pd.DataFrame, folds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    images = predictions.rename(columns={"probability": "raw_probability"})
    each = []
    for fold in folds:
        part = images[images["fold"] == fold["fold"]]
        labels, raw = part["label"].to_numpy(), part["raw_probability"].to_numpy()
        scale = fit_platt(labels, raw).model_dump(include={"slope", "intercept"})
        each.append({**fold, "counts": counts(part), "auroc": float(roc_auc_score(labels, raw)), "calibration": scale})
    numbers = images["fold"].map({fold["fold"]: number for number, fold in enumerate(folds)}).to_numpy(np.int64)
    subject = predict_by_folds(images, numbers)
    labels, lesions = images["label"].to_numpy(), images["lesion_id"].to_numpy(object)
    bootstrap = LesionBootstrap(lesions, labels, seed=BOOTSTRAP_SEED)
    return {
        "folds": each,
        "mean_auroc": float(np.mean([fold["auroc"] for fold in each])),
        "counts": counts(images),
        "auroc": as_json(bootstrap(lambda weights: auroc(labels, subject.calibrated, weights))),
        **describe_cross_fit(images, subject, bootstrap),
    }


def _in_order(folds: Sequence[Path]) -> list[Path]:
    """The runs by the number of their fold, when each fold is there once."""
    places: dict[tuple[int, int], Path] = {}
    for fold in folds:
        if not RunFolder(fold).finished:
            raise RunError(
                f"Received: {fold} as a fold, which {_what_it_is(fold)}. Expected: a run after `dermq-train fit`."
            )
        held_out = RunConfig.read(fold).fold
        if (place := fold_and_folds(held_out)) is None:
            raise RunError(
                f"Received: run {fold} of the fold {held_out!r}. Expected: a run that held one out, after `dermq-train "
                "fit --fold 2/5` or the like."
            )
        if place in places:
            raise RunError(
                f"Received: {places[place]} and {fold}, both of fold {held_out}. Expected: one run of each fold."
            )
        places[place] = fold
    count = max((of for _, of in places), default=0)
    wanted = {(number, count) for number in range(1, count + 1)}
    if set(places) != wanted or not places:
        found = _named(places)
        missing = f"; missing: {_named(wanted - set(places))}" if wanted - set(places) else ""
        raise RunError(f"Received: runs of the folds {found}{missing}. Expected: all folds of one division, each once.")
    return [places[place] for place in sorted(places)]


def _named(places: Iterable[tuple[int, int]]) -> str:
    return ", ".join(f"{number}/{count}" for number, count in sorted(places)) or "none"


def _what_it_is(run: Path) -> str:
    """Why a folder will not do: ``does not exist``, ``is no run``, ``is of fold 1/2``."""
    if not run.exists():
        return "does not exist"
    if not RunFolder(run).begun:
        return "is no run"
    config = RunConfig.read(run)
    if not RunFolder(run).finished:
        return "is not finished"
    return f"is of fold {config.fold}" if config.fold else "has a validation side of the split's own"


def _check(fold: Path, run: Path) -> None:
    differ = recipe_differences(run, fold, but={"seed", "fold"})
    if RunFolder(fold).described().get("data") != RunFolder(run).described().get("data"):
        differ.add("data")
    if differ:
        raise RunError(
            f"Received: run {fold}, which differs from {run} in: {', '.join(sorted(differ))}. Expected: runs that "
            "differ in their fold, and their seed at most, at every step."
        )


def _predictions(fold: Path) -> pd.DataFrame:
    """What a run predicted of the fold that it had held out, and of nothing else."""
    predicted = pd.read_csv(RunFolder(fold).predictions)
    manifest, config = read_manifest(fold), RunConfig.read(fold)
    held_out = _melanomas_and_nevi(manifest, VALIDATION)
    names = set(predicted["image_id"])
    # Under a limit some of them.
    whole = names <= held_out if config.limit else names == held_out
    if not whole or predicted["image_id"].duplicated().any():
        raise RunError(
            f"Received: run {fold} with {len(predicted)} predictions, which are not those of the {len(held_out)} "
            "melanoma and nevus images that it held out. Expected: validation.csv as `dermq-train fit` wrote it."
        )
    return predicted.assign(fold=config.fold)


def _check_whole(predictions: pd.DataFrame, run: Path) -> None:
    """Refuse folds of another division than that which the run was trained on as a whole."""
    wanted, found = _melanomas_and_nevi(read_manifest(run), TRAIN), set(predictions["image_id"])
    whole = found <= wanted if RunConfig.read(run).limit else found == wanted
    if not whole or predictions["image_id"].duplicated().any():
        raise RunError(
            f"Received: folds with {len(predictions)} predictions, of {len(found)} images. Expected: one for each of "
            f"the {len(wanted)} melanoma and nevus images that {run} was trained on. Were they divided by the same "
            "version of scikit-learn? run.json tells."
        )


def _melanomas_and_nevi(manifest: pd.DataFrame, side: str) -> set[str]:
    return set(manifest.loc[(manifest["split"] == side) & manifest["dx"].isin(LABELS), "image_id"])


def _describe(fold: Path) -> dict[str, Any]:
    config = RunConfig.read(fold)
    return {
        "run": fold.resolve().name,
        "fold": config.fold,
        "seed": config.seed,
        "weights_sha256": RunFolder(fold).weights_sha256(),
    }
