"""Calibration and thresholds for a run that was trained on every image outside test, from runs that held a fold out.

Such a run has seen every image that thresholds could be chosen on. Runs of the same recipe have not: each predicts the
fold that it held out, and together they predict every image outside test. Calibration and thresholds are chosen on
these predictions, as in `sklearn.calibration.CalibratedClassifierCV` with ``ensemble=False``.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from trainer.config import ALL_FOLDS, SOURCE_FOLD, RunConfig, fold_and_folds, fold_sources
from trainer.data.diagnoses import LABELS
from trainer.data.splits import TRAIN, VALIDATION, read_manifest
from trainer.data.test_access_log import read_test_accesses
from trainer.errors import OccupiedError, RunError
from trainer.metrics.cross_fitting import cross_fit_folds
from trainer.metrics.discrimination import CHANCE
from trainer.metrics.seeds import recipe_differences
from trainer.report.document import interval
from trainer.run_folder import RunFolder, read_predictions
from worker.atomic_files import write_text
from worker.inference.metrics import FoldRun, FoldsCrossFit


def crossfit(run: Path, folds: Sequence[Path]) -> FoldsCrossFit:
    """Give a run that was trained on everything outside test the predictions of others, so that it can be evaluated.

    Writes ``folds.json`` and, last, ``validation.csv`` into the run folder.

    Args:
        run: a finished run of the fold ``all``.
        folds: finished runs of the same recipe, one for each fold.

    Returns:
        The cross-fitted figures of the recipe.

    Raises:
        OccupiedError: the run has predictions already.
        RunError: a run is not finished or of the wrong fold, a fold is missing or given twice, the runs do not belong
            together or are no better than chance, or something accessed the run's test split.
        InputError: the predictions of the folds rank melanomas below nevi.
    """
    folder = RunFolder(run)
    if not folder.begun or RunConfig.read(run).has_validation:
        raise RunError(
            f"{run} cannot be cross-fitted: it {_what_it_is(run)}. Name the run of `dermq-train fit --fold "
            f"{ALL_FOLDS}` first, and the folds after it."
        )
    if not folder.finished:
        raise RunError(f"The run {run} is not finished. Run its `dermq-train fit` again.")
    if read_test_accesses(run):
        raise RunError(
            f"The run {run} cannot be cross-fitted: its test split was accessed, and thresholds chosen now could "
            f"depend on that. If {folder.predictions.name} was moved, put it back; otherwise train again."
        )
    if folder.predictions.exists():
        raise OccupiedError(
            f"The run {run} is already cross-fitted. It is not evaluated yet: to cross-fit it again, remove "
            f"{folder.predictions.name} from its folder."
        )
    ordered = _in_order(folds)
    for fold in ordered:
        _check(fold, run)
    predictions = pd.concat([_predictions(fold) for fold in ordered], ignore_index=True).sort_values("image_id")
    _check_whole(predictions, run)
    described = [_describe(fold) for fold in ordered]
    # Before anything is written: folds that learned nothing leave the run unchanged.
    found = cross_fit_folds(predictions, described)
    if (low := found.auroc.low) is not None and low <= CHANCE:
        raise RunError(
            f"The folds have together an area under the ROC curve of {interval(found.auroc)}, which may be no better "
            "than chance. Train longer, or on more lesions."
        )
    with folder.lock():
        write_text(run / "folds.json", json.dumps([fold.model_dump() for fold in described], indent=2) + "\n")
        folder.log(f"cross-fitted with {', '.join(fold.run for fold in described)}")
        write_text(folder.predictions, predictions.to_csv(index=False))
    return found


def folds_of(run: Path) -> tuple[FoldRun, ...]:
    """The runs that a run was cross-fitted with. Empty for none."""
    file = run / "folds.json"
    return tuple(FoldRun.model_validate(fold) for fold in json.loads(file.read_text())) if file.is_file() else ()


def describe_crossfit(run: Path) -> FoldsCrossFit:
    """The cross-fitted figures of a cross-fitted run, see `trainer.metrics.cross_fitting.cross_fit_folds`."""
    return cross_fit_folds(read_predictions(RunFolder(run).chosen_predictions()), folds_of(run))


def _in_order(folds: Sequence[Path]) -> list[Path]:
    """The runs by their fold, when each fold is there once."""
    if any(RunFolder(fold).finished and fold_sources(RunConfig.read(fold).fold) for fold in folds):
        return _in_order_of_sources(folds)
    places: dict[tuple[int, int], Path] = {}
    for fold in folds:
        if not RunFolder(fold).finished:
            raise RunError(f"{fold} cannot be used as a fold: it {_what_it_is(fold)}. Name a finished run.")
        held_out = RunConfig.read(fold).fold
        if (place := fold_and_folds(held_out)) is None:
            raise RunError(
                f"The run {fold} has --fold {held_out!r}. Name runs that held a "
                "fold out, such as `dermq-train fit --fold 2/5`."
            )
        if place in places:
            raise RunError(f"{places[place]} and {fold} both held out fold {held_out}. Name one run of each fold.")
        places[place] = fold
    count = max((of for _, of in places), default=0)
    wanted = {(number, count) for number in range(1, count + 1)}
    if set(places) != wanted or not places:
        missing = f"; {_named(wanted - set(places))} is missing" if wanted - set(places) else ""
        raise RunError(f"The runs held out the folds {_named(places)}{missing}. Name one run of each fold.")
    return [places[place] for place in sorted(places)]


def _in_order_of_sources(folds: Sequence[Path]) -> list[Path]:
    """The runs by the sources that they held out, when no source is held out twice."""
    named: dict[str, Path] = {}
    order: dict[str, Path] = {}
    for fold in folds:
        if not RunFolder(fold).finished:
            raise RunError(f"{fold} cannot be used as a fold: it {_what_it_is(fold)}. Name a finished run.")
        held_out = RunConfig.read(fold).fold
        if not (sources := fold_sources(held_out)):
            raise RunError(
                f"The run {fold} has --fold {held_out!r}, and others held out whole sources. Name runs of one kind."
            )
        for source in sources:
            if source in named:
                raise RunError(f"{named[source]} and {fold} both held out the source {source}. Name one of them.")
            named[source] = fold
        order[held_out] = fold
    if len(order) < 2:
        raise RunError("There is only one fold. Calibration and thresholds for a clinic come from the others: add one.")
    return [order[name] for name in sorted(order)]


def _named(places: Iterable[tuple[int, int]]) -> str:
    return ", ".join(f"{number}/{count}" for number, count in sorted(places)) or "none"


def _what_it_is(run: Path) -> str:
    """Why a folder cannot be used: ``does not exist``, ``is no run``, ``held out fold 1/2``."""
    if not run.exists():
        return "does not exist"
    if not RunFolder(run).begun:
        return "is no run"
    config = RunConfig.read(run)
    if not RunFolder(run).finished:
        return "is not finished"
    return f"held out fold {config.fold}" if config.fold else "was trained without --fold"


def _check(fold: Path, run: Path) -> None:
    differ = recipe_differences(run, fold, but={"seed", "fold"})
    if RunFolder(fold).described().data != RunFolder(run).described().data:
        differ.add("data")
    if differ:
        raise RunError(
            f"The run {fold} differs from {run} in {', '.join(sorted(differ))}. "
            "Only fold and seed may differ, at every step."
        )


def _predictions(fold: Path) -> pd.DataFrame:
    """What a run predicted for the fold that it held out, and for nothing else."""
    predicted = read_predictions(RunFolder(fold).predictions)
    manifest, config = read_manifest(fold), RunConfig.read(fold)
    held_out = _melanomas_and_nevi(manifest, VALIDATION)
    names = set(predicted["image_id"])
    # With a limit, only some of them.
    whole = names <= held_out if config.limit else names == held_out
    if not whole or predicted["image_id"].duplicated().any():
        raise RunError(
            f"The {len(predicted)} predictions of the run {fold} are not those of the {len(held_out)} melanoma and "
            "nevus images that it held out. Restore the validation.csv that `dermq-train fit` wrote, or train again."
        )
    return predicted.assign(fold=config.fold)


def _check_whole(predictions: pd.DataFrame, run: Path) -> None:
    """Refuse folds that are together not what the run was trained on.

    Folds of sources may leave out what cannot be held out, as the images that the first weights were trained on.
    """
    wanted, found = _melanomas_and_nevi(read_manifest(run), TRAIN), set(predictions["image_id"])
    by_source = predictions["fold"].astype(str).str.startswith(SOURCE_FOLD).all()
    whole = found <= wanted if RunConfig.read(run).limit or by_source else found == wanted
    if not whole or predictions["image_id"].duplicated().any():
        raise RunError(
            f"The folds have {len(predictions)} predictions of {len(found)} images. There must be one for each of the "
            f"{len(wanted)} melanoma and nevus images that {run} was trained on. Check that every run.json names the "
            "same version of scikit-learn, which divides the folds."
        )


def _melanomas_and_nevi(manifest: pd.DataFrame, side: str) -> set[str]:
    return set(manifest.loc[(manifest["split"] == side) & manifest["dx"].isin(LABELS), "image_id"])


def _describe(fold: Path) -> FoldRun:
    config = RunConfig.read(fold)
    return FoldRun(
        run=fold.resolve().name,
        fold=config.fold,
        seed=config.seed,
        weights_sha256=RunFolder(fold).weights_sha256(),
    )
