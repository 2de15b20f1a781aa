"""What other runs add to a report: seeds of the same recipe, and runs that were trained without a source."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from trainer.config import RunConfig
from trainer.data.splits import TRAIN, VALIDATION, read_manifest
from trainer.errors import InputError
from trainer.metrics.figures import FigureRange, SeedRun, Seeds
from trainer.run_folder import RunFolder
from trainer.run_records import RunOrigin
from worker.inference.metrics import BundleMetrics, Estimate


def check_seeds(run: Path, others: Sequence[Path]) -> None:
    """Refuse what `compare_seeds` cannot compare, before the test split is accessed for it.

    Args:
        run: the run of the report.
        others: run folders after ``dermq-train evaluate``, of the same split.

    Raises:
        MissingError: a run was not evaluated.
        InputError: a run has another split, and so other test images; or it differs in more than the seed, or not in
            the seed.
    """
    split = RunFolder(run).split_sha256()
    seen = [run]
    for other in others:
        RunFolder(other).metrics()
        if (theirs := RunFolder(other).split_sha256()) != split:
            raise InputError(
                f"--seed-run {other} has the split {theirs[:12]}, and {run} has {split[:12]}. Seeds are compared on "
                "the same test images: train with the same --split-seed."
            )
        require_other_seeds(other, seen)
        seen.append(other)


def compare_seeds(run: Path, metrics: BundleMetrics, others: Sequence[Path]) -> Seeds:
    """The range of each figure over runs that differ in their seed.

    Args:
        run: the run of the report.
        metrics: its metrics.
        others: run folders that `check_seeds` accepted.
    """
    found = [(run, metrics), *((other, RunFolder(other).metrics()) for other in others)]
    of_runs = [_figures(each) for _, each in found]
    values = {name: [each[name] for each in of_runs] for name in of_runs[0] if all(name in each for each in of_runs)}
    return Seeds(
        runs=tuple(
            SeedRun(run=folder.name, seed=RunConfig.read(folder).seed, figures=figures)
            for (folder, _), figures in zip(found, of_runs, strict=True)
        ),
        figures={
            name: FigureRange(mean=float(np.mean(each)), least=min(each), greatest=max(each))
            for name, each in values.items()
        },
        same_start=len({RunConfig.read(folder).weights_sha256 for folder, _ in found}) == 1,
    )


def sources_left_out(everything: pd.DataFrame, run: Path) -> list[str]:
    """Sources of which a run saw no image in training or validation.

    Args:
        everything: rows of the data set with ``image_id`` and ``dataset``.
        run: a run folder.

    Raises:
        InputError: the run saw every source.
    """
    manifest = read_manifest(run)
    seen = set(manifest.loc[manifest["split"].isin((TRAIN, VALIDATION)), "image_id"])
    sources = set(everything["dataset"].dropna().astype(str))
    known = set(everything.loc[everything["image_id"].isin(seen), "dataset"].astype(str))
    if not (left := sorted(sources - known)):
        raise InputError(
            f"--left-out-run {run} was trained on every source ({', '.join(sorted(sources))}). Name a run that was "
            "trained with --without-source."
        )
    return left


def require_same_recipe(run: Path, other: Path) -> None:
    """Refuse a run that differs in more than its seed and the source that it was trained without.

    Raises:
        InputError: names the settings that differ.
    """
    if differ := recipe_differences(run, other, but={"seed", "without_source"}):
        raise InputError(
            f"--left-out-run {other} differs from {run} in {', '.join(sorted(differ))} too. Name a run of the same "
            "recipe without a source: otherwise the difference is not that of the source."
        )


def recipe_differences(run: Path, other: Path, *, but: set[str]) -> set[str]:
    """In what the recipes of two runs differ, at any step.

    Runs that a run continues from are compared too: their weights differ, and their recipe must not. Only
    the number of teachers is compared, since other training images need other teachers.

    Args:
        run: a run folder.
        other: another.
        but: settings that may differ.

    Returns:
        Names of settings, or what else differs. Empty for the same recipe.
    """
    steps = [RunFolder(each).origin().lineage() for each in (run, other)]
    differ: set[str] = set().union(*(_differences(one, theirs, but) for one, theirs in zip(*steps, strict=False)))
    if len(steps[0]) != len(steps[1]):
        differ.add("the runs that it continues from")
    if RunFolder(run).described().recipe != RunFolder(other).described().recipe:
        differ.add("the version of the code")
    return differ


def _differences(one: RunOrigin, other: RunOrigin, but: set[str]) -> set[str]:
    """Settings of the recipe of one step in which two runs differ."""
    differ = set(one.config.differences(other.config)) - but
    if one.continues_from and other.continues_from:
        differ -= {"weights", "weights_sha256"}
    if len(one.config.teachers) == len(other.config.teachers):
        differ -= {"teachers"}
    return differ


def _figures(metrics: BundleMetrics) -> dict[str, float]:
    estimates: dict[str, Estimate | None] = {
        "auroc": metrics.auroc,
        "auprc": metrics.auprc,
        "brier": metrics.brier,
    }
    for policy, numbers in metrics.policies.items():
        estimates[f"sensitivity at {policy}"] = numbers.sensitivity
        estimates[f"specificity at {policy}"] = numbers.specificity
    return {name: each.value for name, each in estimates.items() if each is not None and each.value is not None}


def require_other_seeds(other: Path, runs: Sequence[Path]) -> None:
    """Refuse a run that differs from others in more than the seed, or not in the seed of a step of its own.

    Args:
        other: a run folder.
        runs: of the same recipe. A step that they share, as branches of one run do, is not counted.

    Raises:
        InputError: names what differs.
    """
    for run in runs:
        differ = sorted(recipe_differences(run, other, but={"seed"}))
        if not differ and (steps := _steps_with_one_seed(run, other)):
            differ = [f"nothing at the step with seed {seed}" for seed in steps]
        if differ:
            raise InputError(
                f"--seed-run {other} differs from {run} in {', '.join(differ)}. The range is that of chance only if "
                "the runs differ in the seed of every step that they do not share, and in nothing else."
            )


def _steps_with_one_seed(run: Path, other: Path) -> list[int]:
    """Seeds of the steps that two runs of one recipe each made with the same seed."""
    configs = [[step.config for step in RunFolder(each).origin().lineage()] for each in (run, other)]
    # The weights that a step starts from tell whether the step before was the same.
    own = [one.weights_sha256 != theirs.weights_sha256 for one, theirs in zip(*configs, strict=True)][1:]
    return [
        one.seed
        for one, theirs, is_own in zip(*configs, [*own, True], strict=True)
        if is_own and one.seed == theirs.seed
    ]
