"""What other runs add to a report: seeds of the same recipe, and runs that were trained without a source."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from trainer.config import RunConfig
from trainer.data.splits import TRAIN, VALIDATION, read_manifest
from trainer.run_folder import RunFolder, lineage, recipe_of
from worker.inference.bundle import sha256_of


def check_seeds(run: Path, others: Sequence[Path]) -> None:
    """Refuse what `compare_seeds` cannot compare, before the test split is opened for it.

    Args:
        run: the run of the report; of an average the others are its members.
        others: run folders after ``dermq-train evaluate``, of the same split.

    Raises:
        FileNotFoundError: a run was not evaluated.
        ValueError: a run has another split, so that its test images are others; or other settings than the seed differ,
            or the seed does not; or it is an average itself, or an average is not of this run.
    """
    split, members = _split_sha256(run), _members(run)
    seen = [] if members else [run]
    for other in others:
        if not (other / "metrics.json").is_file():
            raise FileNotFoundError(
                f"Received: run {other} without metrics.json. Expected: a run after `dermq-train evaluate {other}`."
            )
        if (theirs := _split_sha256(other)) != split:
            raise ValueError(
                f"Received: run {other} of split {theirs[:12]}. Expected: the split of {run}, {split[:12]}. Seeds can "
                "be compared on the same test images only: train with the same --split-seed."
            )
        if _members(other):
            raise ValueError(
                f"Received: run {other} for --seeds, which is an average of runs. Expected: runs of one seed each; the "
                "range is to show chance alone."
            )
        if members:
            _require_member(other, run, members)
        require_other_seeds(other, seen)
        seen.append(other)


def compare_seeds(run: Path, metrics: dict[str, Any], others: Sequence[Path]) -> dict[str, Any]:
    """The range of each figure over runs that differ by their seed.

    Args:
        run: the run of the report; of an average the others are its members, and itself is none of the seeds.
        metrics: its metrics.
        others: run folders after ``dermq-train evaluate``, of the same split.

    Returns:
        ``runs`` (name, seed and figures of each), ``figures`` (mean, least and greatest of each figure), ``average``
        (name and figures of a run that is the average of the others, else null) and ``same_start`` (whether all go on
        from the same weights, so that the range is of the last step alone).

    Raises:
        FileNotFoundError, ValueError: as `check_seeds`.
    """
    check_seeds(run, others)
    members = _members(run)
    found = [] if members else [(run, metrics)]
    found += [(other, json.loads((other / "metrics.json").read_text())) for other in others]
    of_runs = [_figures(each) for _, each in found]
    runs = [
        {"run": folder.name, "seed": _seed(folder), "figures": figures}
        for (folder, _), figures in zip(found, of_runs, strict=True)
    ]
    average = {"run": run.name, "figures": _figures(metrics)} if members else None
    figures = {}
    for name in of_runs[0] if of_runs else ():
        if not all(name in each for each in (*of_runs, *([average["figures"]] if average else ()))):
            continue
        values = [each[name] for each in of_runs]
        figures[name] = {"mean": float(np.mean(values)), "least": min(values), "greatest": max(values)}
    trunks = {RunConfig.read(folder).weights_sha256 for folder, _ in found}
    return {"runs": runs, "figures": figures, "average": average, "same_start": len(trunks) == 1}


def sources_left_out(everything: pd.DataFrame, run: Path) -> list[str]:
    """Sources of which a run saw no image in training or validation.

    Args:
        everything: rows of the data set with ``image_id`` and ``dataset``.
        run: a run folder.

    Raises:
        ValueError: the run saw every source.
    """
    manifest = read_manifest(run)
    seen = set(manifest.loc[manifest["split"].isin((TRAIN, VALIDATION)), "image_id"])
    sources = set(everything["dataset"].dropna().astype(str))
    known = set(everything.loc[everything["image_id"].isin(seen), "dataset"].astype(str))
    if not (left := sorted(sources - known)):
        raise ValueError(
            f"Received: run {run} for --also, which was trained on every source ({', '.join(sorted(sources))}). "
            "Expected: a run trained with --without-source."
        )
    return left


def require_same_recipe(run: Path, other: Path) -> None:
    """Refuse a run that differs in more than the source that it was trained without and its seed.

    Raises:
        ValueError: names the settings that differ.
    """
    if differ := recipe_differences(run, other, but={"seed", "without_source"}):
        raise ValueError(
            f"Received: run {other}, which differs from {run} in: {', '.join(sorted(differ))}. "
            "Expected: the same recipe without a source; else the difference is not the source's."
        )


def recipe_differences(run: Path, other: Path, *, but: set[str]) -> set[str]:
    """In what the recipes of two runs differ, at any step.

    What a run goes on from, or is an average of, is compared too: its weights must differ, its recipe must not. Of the
    teachers the number is compared: on other images they are others, of whose making a run knows no more.

    Args:
        run: a run folder.
        other: another.
        but: settings that may differ.

    Returns:
        Names of settings, or what else differs; empty for the same recipe.
    """
    steps = [lineage(RunFolder(each).origin()) for each in (run, other)]
    differ: set[str] = set().union(*(_differences(one, theirs, but) for one, theirs in zip(*steps, strict=False)))
    if len(steps[0]) != len(steps[1]):
        differ.add("the runs that it goes on from")
    if recipe_of(run) != recipe_of(other):
        differ.add("the version of the code")
    return differ


def _differences(one: dict[str, Any], other: dict[str, Any], but: set[str]) -> set[str]:
    """Settings that make the recipe of one step, in which two runs differ."""
    settings = [RunConfig.from_settings(step["config"], run=step["run"]) for step in (one, other)]
    differ = set(settings[0].differences(settings[1])) - but
    if one.get("continues_from") and other.get("continues_from"):
        differ -= {"weights", "weights_sha256"}
    if len(settings[0].teachers) == len(settings[1].teachers):
        differ -= {"teachers"}
    if len(one.get("averaged", [])) != len(other.get("averaged", [])):
        differ.add("how many runs were averaged")
    return differ


def _members(run: Path) -> list[dict[str, Any]]:
    """The runs that a run is the average of."""
    members: list[dict[str, Any]] = RunFolder(run).described().get("averaged", [])
    return members


def _figures(metrics: dict[str, Any]) -> dict[str, float]:
    figures = {name: metrics[name]["value"] for name in ("auroc", "auprc", "brier")}
    for policy, numbers in metrics["policies"].items():
        for name in ("sensitivity", "specificity"):
            figures[f"{name} at {policy}"] = numbers[name]["value"]
    return figures


def _split_sha256(run: Path) -> str:
    return str(json.loads((run / "split.json").read_text())["sha256"])


def _require_member(other: Path, run: Path, members: Sequence[dict[str, Any]]) -> None:
    best = RunFolder(other).best
    if not best.is_file() or sha256_of(best) not in [member["weights_sha256"] for member in members]:
        names = ", ".join(f"{member['run']} (seed {member['seed']})" for member in members)
        raise ValueError(
            f"Received: run {other}, which {run} is not an average of. Expected: one of {names}, with the weights that "
            "were averaged."
        )


def require_other_seeds(other: Path, runs: Sequence[Path]) -> None:
    """Refuse a run that differs from others in more than its seed, or not in the seed of every step of its own.

    Args:
        other: a run folder.
        runs: of the same recipe; a step that it shares with one of them, as branches of one run do, is not counted.

    Raises:
        ValueError: names what differs.
    """
    for run in runs:
        differ = sorted(recipe_differences(run, other, but={"seed"}))
        if not differ and (steps := _steps_with_one_seed(run, other)):
            differ = [f"nothing at the step with seed {seed}" for seed in steps]
        if differ:
            raise ValueError(
                f"Received: run {other}, which differs from {run} in: {', '.join(differ)}. Expected: runs that differ "
                "in their seed, at every step that they do not share, and in nothing else; the range is to show chance "
                "alone."
            )


def _steps_with_one_seed(run: Path, other: Path) -> list[int]:
    """Seeds of the steps that two runs of one recipe made each for itself, with the same seed."""
    configs = [[step["config"] for step in lineage(RunFolder(each).origin())] for each in (run, other)]
    # What a step goes on from tells whether the one before it is the same.
    made = [one.get("weights_sha256") != theirs.get("weights_sha256") for one, theirs in zip(*configs, strict=True)][1:]
    return [
        int(one["seed"])
        for one, theirs, own in zip(*configs, [*made, True], strict=True)
        if own and one["seed"] == theirs["seed"]
    ]


def _seed(run: Path) -> int | None:
    seed = json.loads((run / "config.json").read_text()).get("seed")
    return int(seed) if seed is not None else None
