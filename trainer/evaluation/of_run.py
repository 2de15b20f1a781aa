"""Open the sealed test split: score it with a run's model, and state how well it does as JSON and as a report.

Threshold and calibration come from validation. Every opening is logged in the run folder, because a test split that is
looked at while choosing is not one.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from trainer.data.ham10000 import DIAGNOSES, LABELS, melanoma_or_nevus
from trainer.data.run_images import read_images_of
from trainer.data.splits import LESION_DISJOINT, TEST, TRAIN, VALIDATION, first_lesions, split_kind
from trainer.evaluation.crossfit import describe_crossfit, folds_of
from trainer.evaluation.engine_parity import bundle_model
from trainer.evaluation.engines import Engines, run_engines
from trainer.evaluation.robustness import other_diagnoses
from trainer.evaluation.subject import EvaluationSubject, run_subject
from trainer.evaluation.test_access_log import log_test_access
from trainer.evaluation.trained_run import TrainedRun, load_trained_run
from trainer.metrics.assess import assess, counts
from trainer.metrics.discrimination import auroc, average_precision
from trainer.metrics.leakage import check_leakage
from trainer.metrics.missed import missed_melanomas
from trainer.metrics.seeds import check_seeds, compare_seeds, require_same_recipe, sources_left_out
from trainer.metrics.seven_classes import describe_classes
from trainer.metrics.subgroups import as_json, describe, share_of
from trainer.report import write_report
from trainer.report.report_file import REPORT_FORMAT
from trainer.thresholds.bootstrap import LesionBootstrap
from trainer.thresholds.calibration import brier
from trainer.thresholds.policies import BOOTSTRAP_SEED
from worker.atomic_files import write_text
from worker.inference.bundle import PolicyThreshold

#: Said before the part of an evaluation that takes longest.
SAY_ROBUSTNESS = "Changing images and scoring them again: hair, ruler, ink, vignette, blur, JPEG"


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """What an evaluation does beside the figures themselves.

    Args:
        cache: folder of thumbnails for the near-duplicate check.
        quick: leave out robustness and the other diagnoses.
        pictures: put the missed melanomas' pictures into ``report.html``.
        seeds: runs of the same recipe with other seeds, evaluated already.
        also: runs that were trained without a source.
        remarks: sentences that shall stand beside the figures, of what the run folder does not tell.
        bundle: the run's bundle, to compare with; without one the model is converted here.
        say: takes a line about what is being done, for the person who waits.
    """

    cache: Path = Path(".cache/dermq")
    quick: bool = False
    pictures: bool = True
    seeds: Sequence[Path] = ()
    also: Sequence[Path] = ()
    remarks: Sequence[str] = ()
    bundle: Path | None = None
    say: Callable[[str], None] = lambda line: None


def evaluate(dataset: Path, run: Path, options: EvaluationOptions | None = None) -> dict[str, Any]:
    """Open the test split once, and write ``test.csv``, ``metrics.json``, ``report.json`` and ``report.html``.

    Args:
        dataset: the HAM10000 folder.
        run: the run folder.
        options: what to do beside the figures.

    Returns:
        The metrics, as in ``metrics.json``.

    Raises:
        SplitError: the manifest was changed since the run began.
        RunError: the run was begun with other data.
        FileNotFoundError: the run, or one to compare with, is not finished.
        ValueError: a run or bundle to compare with does not fit this run, or it is of one fold.
    """
    options = options or EvaluationOptions()
    started = time.monotonic()
    trained_run = load_trained_run(run)
    if trained_run.config.fold and trained_run.config.has_validation:
        raise ValueError(
            f"Received: run {run} of fold {trained_run.config.fold}. Expected: the run on all folds, after "
            "`dermq-train "
            "crossfit`: its test split is this one's too, and stays sealed until then."
        )
    with_split = read_images_of(run, dataset)
    split_sha256 = str(json.loads((run / "split.json").read_text())["sha256"])
    # What does not fit is refused before the test split is opened.
    for folder in options.also:
        require_same_recipe(run, folder)
    check_seeds(run, options.seeds)
    left_out = [(folder, load_trained_run(folder), sources_left_out(with_split, folder)) for folder in options.also]
    engines = _engines(trained_run, options, split_sha256)
    log_test_access(run, "evaluate")

    used = first_lesions(with_split, trained_run.config.limit)
    subject = run_subject(run, trained_run)
    opened = open_test(subject, used, run, options, kind=split_kind(run))
    crossfitted = describe_crossfit(run) if folds_of(run) else None
    if crossfitted:
        # So that a bundle carries them, which holds no predictions.
        opened = replace(opened, metrics=opened.metrics | {"crossfit": crossfitted})
    report = opened.report | {
        "flow": flow(with_split, used),
        "leakage": check_leakage(with_split, options.cache),
        "crossfit": crossfitted,
        "seeds": compare_seeds(run, opened.metrics, options.seeds),
        "sources_left_out": [entry for other in left_out for entry in _left_out(*other, opened.test)],
        "engine_parity": engines.parity(opened.test, engines.other(opened.inputs)),
    }
    if not options.quick:
        options.say(SAY_ROBUSTNESS)
        report["robustness"] = engines.robustness(opened.test)
    write_on_test(report, opened, run, options, started)
    return opened.metrics


@dataclass(frozen=True, kw_only=True)
class Opened:
    """The test images, scored.

    Args:
        report: entries of ``report.json`` that need the scores alone.
        metrics: as in ``metrics.json``.
        test: rows as `trainer.evaluation.trained_run.TrainedRun.score` gives them.
        inputs: of the model, (n, size, size, 3), uint8, RGB.
    """

    report: dict[str, Any]
    metrics: dict[str, Any]
    test: pd.DataFrame
    inputs: npt.NDArray[np.uint8]


def open_test(
    subject: EvaluationSubject, used: pd.DataFrame, folder: Path, options: EvaluationOptions, *, kind: str
) -> Opened:
    """Score the test images, write ``test.csv``, and compute what needs the scores alone.

    What an earlier evaluation left goes first, so that no figure of one stands beside those of another.

    Args:
        subject: a run or a bundle.
        used: rows of the data set with their side of the split.
        folder: to write into.
        options: what to do beside the figures.
        kind: of the split, as in `trainer.data.splits`.
    """
    thresholds = subject.policies.thresholds
    for earlier in ("metrics.json", "report.json", "report.html", "test.csv"):
        (folder / earlier).unlink(missing_ok=True)
    options.say("Scoring the test images")
    test, inputs = subject.score(melanoma_or_nevus(used[used["split"] == TEST]))
    test.drop(columns=["path", "sha256"]).to_csv(folder / "test.csv", index=False)
    metrics = measure(test, thresholds, kind=kind)
    report: dict[str, Any] = {
        "format": REPORT_FORMAT,
        "kind": "test",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "run": subject.described,
        "remarks": [" ".join(remark.split()) for remark in options.remarks],
        "policies": {name: policy.model_dump() for name, policy in thresholds.items()},
        "refused_policies": subject.policies.refused,
        "assessment": assess(test, thresholds),
        "missed": missed_melanomas(test, thresholds),
        "robustness": None,
    }
    others = used[(used["split"] == TEST) & ~used["dx"].isin(LABELS)]
    if options.quick:
        others = others.iloc[:0]
    if len(others):
        options.say("Scoring the other diagnoses")
        others, _ = subject.score(others)
    report |= describe_others(subject, test, others)
    options.say("Looking for anything seen before; comparing engines")
    return Opened(report=report, metrics=metrics, test=test, inputs=inputs)


def describe_others(subject: EvaluationSubject, scored: pd.DataFrame, others: pd.DataFrame) -> dict[str, Any]:
    """What the model makes of the diagnoses that it does not tell apart, for ``report.json``.

    Args:
        subject: a run or a bundle.
        scored: melanomas and nevi, as `trainer.evaluation.subject.EvaluationSubject.score` gives them.
        others: images of the other diagnoses, likewise; may be empty.

    Returns:
        ``other_diagnoses``, and ``seven_classes`` of a model that was trained on all; both None without such images.
    """
    seven = len(others) and subject.described["config"]["classes"] == "seven"
    return {
        "other_diagnoses": other_diagnoses(others, subject.policies.thresholds) if len(others) else None,
        "seven_classes": describe_classes(pd.concat((scored, others), ignore_index=True)) if seven else None,
    }


def write_on_test(
    report: dict[str, Any], opened: Opened, folder: Path, options: EvaluationOptions, started: float
) -> None:
    """Write ``report.json`` and ``report.html``, and last ``metrics.json``, which marks that the evaluation is whole.

    Args:
        report: every entry but ``seconds``.
        opened: whose metrics are written, and whose images have the pictures.
        folder: to write into.
        options: what to do beside the figures.
        started: by `time.monotonic`.
    """
    test = opened.test
    paths = dict(zip(test["image_id"], test["path"], strict=True)) if options.pictures else {}
    report = {**report, "seconds": round(time.monotonic() - started)}
    write_report(report, folder, {str(name): Path(path) for name, path in paths.items()})
    write_text(folder / "metrics.json", json.dumps(opened.metrics, indent=2) + "\n")


def measure(
    test: pd.DataFrame, thresholds: dict[str, PolicyThreshold], *, kind: str = LESION_DISJOINT
) -> dict[str, Any]:
    """The figures that a bundle carries, with lesion-clustered 95% intervals.

    Args:
        test: rows with ``label``, calibrated ``probability`` and ``lesion_id``.
        thresholds: trained_run on validation.
        kind: of the split, as in `trainer.data.splits`.

    Returns:
        Counts, AUROC, AUPRC, Brier score, and sensitivity and specificity per policy.
    """
    labels, probabilities = test["label"].to_numpy(), test["probability"].to_numpy()
    lesions = test["lesion_id"].to_numpy(object)
    bootstrap = LesionBootstrap(lesions, labels, seed=BOOTSTRAP_SEED)
    policies = {}
    for name, policy in thresholds.items():
        called = probabilities >= policy.threshold
        policies[name] = {
            "threshold": policy.threshold,
            "sensitivity": share_of(bootstrap, called, labels == 1, lesions),
            "specificity": share_of(bootstrap, ~called, labels == 0, lesions),
            "missed_melanoma_images": int((~called & (labels == 1)).sum()),
        }
    return {
        "split": f"test, {kind}, single pass",
        **counts(test),
        "auroc": as_json(bootstrap(lambda weights: auroc(labels, probabilities, weights))),
        "auprc": as_json(bootstrap(lambda weights: average_precision(labels, probabilities, weights))),
        "brier": as_json(bootstrap(lambda weights: brier(labels, probabilities, weights))),
        "policies": policies,
        "intervals": "95%, percentile, 1,000 resamples of whole lesions within each class",
        "mean_probability": float(np.mean(probabilities)),
    }


def _engines(trained_run: TrainedRun, options: EvaluationOptions, split_sha256: str) -> Engines:
    if options.bundle is None:
        return run_engines(trained_run)
    return run_engines(
        trained_run,
        *bundle_model(options.bundle, trained_run.config, trained_run.calibration, split_sha256=split_sha256),
    )


def _left_out(run: Path, other: TrainedRun, sources: list[str], test: pd.DataFrame) -> list[dict[str, Any]]:
    """Figures of a run on the test images of the sources that it never saw, at its own trained_run thresholds."""
    log_test_access(run, "evaluate")
    manifest = pd.read_csv(run / "split.csv")
    seen = set(manifest.loc[manifest["split"].isin((TRAIN, VALIDATION)), "lesion_id"])
    entries = []
    for source in sources:
        unseen = test[(test["dataset"] == source) & ~test["lesion_id"].isin(seen)].reset_index(drop=True)
        limits = {name: policy.threshold for name, policy in other.thresholds.items()}
        figures = describe(other.score(unseen)[0], limits, seed=BOOTSTRAP_SEED) if len(unseen) else None
        entries.append({"run": run.name, "source": source, "figures": figures})
    return entries


def flow(everything: pd.DataFrame, used: pd.DataFrame) -> dict[str, Any]:
    """Who was left out where, and who is on which side."""

    def size(rows: pd.DataFrame) -> dict[str, int]:
        return {"lesions": int(rows["lesion_id"].nunique()), "images": len(rows)}

    two = melanoma_or_nevus(everything)
    kept = melanoma_or_nevus(used)
    trained_on = used[used["split"] == TRAIN]
    return {
        "all": size(everything),
        "other_diagnoses": size(everything[~everything["dx"].isin(LABELS)]),
        "two_classes": size(two),
        "left_out_by_limit": len(two) - len(kept),
        "splits": {
            str(side): {"all": size(part), **{dx: size(part[part["dx"] == dx]) for dx in LABELS}}
            for side, part in kept.groupby("split")
        },
        "training": {dx: size(trained_on[trained_on["dx"] == dx]) for dx in DIAGNOSES},
    }
