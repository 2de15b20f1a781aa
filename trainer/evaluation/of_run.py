"""Evaluate a run on the test split, and state how good it is as JSON and as a report.

Threshold and calibration come from validation. Every access to the test split is logged in the run folder: a test split
that is consulted while choosing is no test any more.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from trainer.data.diagnoses import LABELS, melanoma_or_nevus
from trainer.data.run_images import read_images_of
from trainer.data.splits import TEST, TRAIN, VALIDATION, first_lesions, read_manifest
from trainer.data.test_access_log import log_test_access
from trainer.errors import RunError
from trainer.evaluation.assembly import bundle_metrics, count_participants, make_report, write_evaluation
from trainer.evaluation.crossfit import describe_crossfit, folds_of
from trainer.evaluation.engine_parity import bundle_model
from trainer.evaluation.engines import Engines, run_engines
from trainer.evaluation.options import EvaluationOptions
from trainer.evaluation.subject import EvaluationSubject, run_subject
from trainer.evaluation.trained_run import TrainedRun, load_trained_run
from trainer.metrics.figures import LeftOutSource, SourceFigures
from trainer.metrics.leakage import check_leakage
from trainer.metrics.seeds import check_seeds, compare_seeds, require_same_recipe, sources_left_out
from trainer.metrics.sources import describe_sources, first_data_set, source_metrics
from trainer.metrics.subgroups import describe
from trainer.run_folder import RunFolder
from trainer.thresholds.policies import BOOTSTRAP_SEED
from worker.inference.metrics import BundleMetrics


def evaluate(datasets: Sequence[Path], run: Path, options: EvaluationOptions | None = None) -> BundleMetrics:
    """Access the test split once, and write ``test.csv``, ``metrics.json``, ``report.json`` and ``report.html``.

    Args:
        datasets: folders of the data sets.
        run: the run folder.
        options: what to do beside the figures.

    Returns:
        The figures of ``metrics.json``.

    Raises:
        SplitError: the manifest was changed since the run began.
        RunError: the run was begun with other data, or has one fold only.
        MissingError: the run, or one to compare with, is not finished.
        InputError: a run or bundle to compare with does not fit this run.
    """
    options = options or EvaluationOptions()
    started = time.monotonic()
    trained_run = load_trained_run(run)
    config = trained_run.config
    if config.fold and config.has_validation:
        raise RunError(
            f"The run {run} holds out fold {config.fold}. Evaluate the run with --fold all, after `dermq-train "
            "crossfit`: both have the same test split, which nothing may access before."
        )
    with_split = read_images_of(run, datasets)
    # Whatever does not fit is refused before the test split is accessed.
    for folder in options.left_out_runs:
        require_same_recipe(run, folder)
    check_seeds(run, options.seed_runs)
    left_out = [(each, load_trained_run(each), sources_left_out(with_split, each)) for each in options.left_out_runs]
    engines = _engines(run, trained_run, options)
    log_test_access(run, "evaluate")

    used = first_lesions(with_split, config.limit)
    subject = run_subject(run, trained_run)
    scored = ScoredTest(subject, used, run, options)
    crossfit = describe_crossfit(run) if folds_of(run) else None
    sources = scored.describe_sources(used)
    metrics = bundle_metrics(
        scored.test,
        subject.policies.thresholds,
        kind=subject.described.split_kind,
        crossfit=crossfit,
        sources=source_metrics(sources),
    )
    report = make_report(
        subject,
        engines,
        scored.test,
        scored.others,
        kind="test",
        parity=engines.parity(scored.test, engines.other(scored.inputs)),
        options=options,
        started=started,
        flow=count_participants(with_split, used),
        leakage=check_leakage(with_split, options.cache),
        crossfit=crossfit,
        sources=sources,
        seeds=compare_seeds(run, metrics, options.seed_runs),
        sources_left_out=[entry for other in left_out for entry in _left_out(*other, scored.test)],
    )
    write_evaluation(report, scored.test, run, pictures=options.pictures, metrics=metrics)
    return metrics


class ScoredTest:
    """The test images, scored. ``test.csv`` is written, and what an earlier evaluation left is removed before.

    Args:
        subject: a run or a bundle.
        used: rows of the data set with ``split``.
        folder: to write into.
        options: what to do beside the figures.
    """

    def __init__(
        self, subject: EvaluationSubject, used: pd.DataFrame, folder: Path, options: EvaluationOptions
    ) -> None:
        # So that no figure of one evaluation stands beside those of another.
        for earlier in ("metrics.json", "report.json", "report.html", "test.csv"):
            (folder / earlier).unlink(missing_ok=True)
        options.say("Scoring the test images")
        #: Melanomas and nevi of the first data set, and their model inputs, (n, size, size, 3), uint8, RGB.
        self._subject = subject
        everything, inputs = subject.score(melanoma_or_nevus(used[used["split"] == TEST]))
        everything.drop(columns=["path", "sha256"]).to_csv(folder / "test.csv", index=False)
        self._of_all_sources = everything
        own = everything["image_id"].isin(set(first_data_set(everything)["image_id"])).to_numpy()
        self.test, self.inputs = everything[own].reset_index(drop=True), inputs[own]
        #: The other diagnoses; empty without robustness.
        self.others = used[(used["split"] == TEST) & ~used["dx"].isin(LABELS)]
        if options.skip_robustness:
            self.others = self.others.iloc[:0]
        if len(self.others):
            options.say("Scoring the other diagnoses")
            self.others, _ = subject.score(self.others)
        options.say("Looking for near-duplicates; comparing engines")

    def describe_sources(self, used: pd.DataFrame) -> tuple[SourceFigures, ...]:
        """Figures by source, see `trainer.metrics.sources.describe_sources`."""
        thresholds = {name: policy.threshold for name, policy in self._subject.policies.thresholds.items()}
        folds = [fold.fold for fold in self._subject.described.folds]
        return describe_sources(used, self._of_all_sources, thresholds, folds)


def _engines(run: Path, trained_run: TrainedRun, options: EvaluationOptions) -> Engines:
    if options.bundle is None:
        return run_engines(trained_run)
    split_sha256 = RunFolder(run).split_sha256()
    return run_engines(
        trained_run,
        *bundle_model(options.bundle, trained_run.config, trained_run.calibration, split_sha256=split_sha256),
    )


def _left_out(run: Path, other: TrainedRun, sources: list[str], test: pd.DataFrame) -> list[LeftOutSource]:
    """Figures of a run on the test images of the sources that it never saw, at its own thresholds."""
    log_test_access(run, "evaluate")
    manifest = read_manifest(run)
    seen = set(manifest.loc[manifest["split"].isin((TRAIN, VALIDATION)), "lesion_id"])
    entries = []
    for source in sources:
        unseen = test[(test["dataset"] == source) & ~test["lesion_id"].isin(seen)].reset_index(drop=True)
        limits = {name: policy.threshold for name, policy in other.thresholds.items()}
        figures = describe(other.score(unseen)[0], limits, seed=BOOTSTRAP_SEED) if len(unseen) else None
        entries.append(LeftOutSource(run=run.name, source=source, figures=figures))
    return entries
