"""Calibration and thresholds for a run that was trained on every image outside test, from runs that left a fold out.

Such a run has no image left that it has not seen. Runs of the same recipe have: each predicts the fold that it was not
trained on, and together they predict every image outside test. The choices are made on these predictions and serve the
run that was trained on all, as in `sklearn.calibration.CalibratedClassifierCV` with ``ensemble=False``.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from trainer.atomic import write_text
from trainer.backbones.weights import file_digest
from trainer.bootstrap import LesionBootstrap
from trainer.config import ALL_FOLDS, FitConfig, fold_and_folds
from trainer.evaluation.assess import counts
from trainer.evaluation.discrimination import auroc
from trainer.evaluation.other_runs import recipe_differences
from trainer.evaluation.recalibration import describe_parts, judge_by_parts
from trainer.evaluation.strata import as_json
from trainer.ham10000 import LABELS
from trainer.policies import BOOTSTRAP_SEED
from trainer.run_folder import RunError, RunFolder
from trainer.splits import TEST, TRAIN, read_manifest


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
        RunError: a run is not finished or of the wrong fold, a fold is missing or there twice, or the runs do not
            belong together.
        ValueError: the outputs of the folds rank melanomas below nevi.
    """
    folder = RunFolder(run)
    if not folder.begun or FitConfig.read(run).fold != ALL_FOLDS:
        raise RunError(f"Received: {run} to cross-fit. Expected: a run after `dermq-train fit --fold {ALL_FOLDS}`.")
    if not folder.finished:
        raise RunError(f"Received: run {run}, which is not finished. Expected: a run after `dermq-train fit`.")
    if folder.predictions.exists():
        raise FileExistsError(
            f"Received: run {run}, which was cross-fitted already. Expected: one that was not; to do it again remove "
            f"{folder.predictions.name} from its folder."
        )
    ordered = _in_order(folds)
    for fold in ordered:
        _check(fold, run)
    predictions = pd.concat([_predictions(fold) for fold in ordered], ignore_index=True).sort_values("image_id")
    _check_whole(predictions, run, ordered)
    described = [_describe(fold) for fold in ordered]
    # Before anything is written: folds that have learned nothing leave the run as it is.
    found = _together(predictions, described)
    write_text(run / "folds.json", json.dumps(described, indent=2) + "\n")
    folder.log(f"cross-fitted with {', '.join(fold['run'] for fold in described)}")
    write_text(folder.predictions, predictions.to_csv(index=False))
    return found


def folds_of(run: Path) -> list[dict[str, Any]]:
    """The runs that a run was cross-fitted with: ``run``, ``fold``, ``seed``, ``weights_sha256``; empty for none."""
    file = run / "folds.json"
    found: list[dict[str, Any]] = json.loads(file.read_text()) if file.is_file() else []
    return found


def describe_crossfit(run: Path) -> dict[str, Any]:
    """What the folds say of the recipe: each image judged by a network, a calibration and thresholds of other lesions.

    Args:
        run: the folder of a cross-fitted run.

    Returns:
        ``folds`` (of each ``run``, ``fold``, ``seed``, ``counts`` and ``auroc``), ``mean_auroc`` of these, ``counts``
        and ``auroc`` of all images together, and what `trainer.evaluation.recalibration.describe_parts` gives.
    """
    return _together(pd.read_csv(RunFolder(run).predictions), folds_of(run))


def _together(predictions: pd.DataFrame, folds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    images = predictions.rename(columns={"probability": "raw_probability"})
    each = []
    for fold in folds:
        part = images[images["fold"] == fold["fold"]]
        area = float(roc_auc_score(part["label"], part["raw_probability"]))
        each.append({**fold, "counts": counts(part), "auroc": area})
    numbers = images["fold"].map({fold["fold"]: number for number, fold in enumerate(folds)}).to_numpy(np.int64)
    judged = judge_by_parts(images, numbers)
    labels, lesions = images["label"].to_numpy(), images["lesion_id"].to_numpy(object)
    bootstrap = LesionBootstrap(lesions, labels, seed=BOOTSTRAP_SEED)
    return {
        "folds": each,
        "mean_auroc": float(np.mean([fold["auroc"] for fold in each])),
        "counts": counts(images),
        "auroc": as_json(bootstrap(lambda weights: auroc(labels, judged.calibrated, weights))),
        **describe_parts(images, judged, bootstrap),
    }


def _in_order(folds: Sequence[Path]) -> list[Path]:
    """The runs by the number of their fold, when each fold is there once."""
    places: dict[int, Path] = {}
    of = set()
    for fold in folds:
        if not RunFolder(fold).finished:
            raise RunError(f"Received: run {fold}, which is not finished. Expected: a run after `dermq-train fit`.")
        held_out = FitConfig.read(fold).fold
        if (place := fold_and_folds(held_out)) is None:
            raise RunError(
                f"Received: run {fold} of the fold {held_out!r}. Expected: a run that held one out, after `dermq-train "
                "fit --fold 2/5` or the like."
            )
        if place[0] in places:
            raise RunError(f"Received: runs {places[place[0]]} and {fold}, both of fold {held_out}. Expected: one.")
        places[place[0]] = fold
        of.add(place[1])
    if len(of) != 1 or set(places) != set(range(1, max(of) + 1)):
        found = ", ".join(FitConfig.read(fold).fold for fold in folds) or "none"
        raise RunError(f"Received: runs of the folds {found}. Expected: all folds of one division, each once.")
    return [places[number] for number in sorted(places)]


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
    return pd.read_csv(RunFolder(fold).predictions).assign(fold=FitConfig.read(fold).fold)


def _check_whole(predictions: pd.DataFrame, run: Path, folds: Sequence[Path]) -> None:
    """Refuse folds that are tested on other images, or do not predict each melanoma and nevus outside test once."""
    manifest = read_manifest(run)
    tested = _images_of(manifest, TEST)
    for fold in folds:
        if _images_of(read_manifest(fold), TEST) != tested:
            raise RunError(f"Received: run {fold}, whose test split is not that of {run}. Expected: the same.")
    # Under a limit each side holds other lesions, of a fold and of all of them.
    wanted = _images_of(manifest[manifest["dx"].isin(LABELS)], TRAIN)
    whole = FitConfig.read(run).limit or set(predictions["image_id"]) == wanted
    if not whole or predictions["image_id"].duplicated().any():
        raise RunError(
            f"Received: folds with {len(predictions)} predictions, of {predictions['image_id'].nunique()} images. "
            f"Expected: one for each of the {len(wanted)} melanoma and nevus images that {run} was trained on."
        )


def _images_of(manifest: pd.DataFrame, side: str) -> set[str]:
    return set(manifest.loc[manifest["split"] == side, "image_id"])


def _describe(fold: Path) -> dict[str, Any]:
    config = FitConfig.read(fold)
    return {
        "run": fold.resolve().name,
        "fold": config.fold,
        "seed": config.seed,
        "weights_sha256": file_digest(RunFolder(fold).best),
    }
