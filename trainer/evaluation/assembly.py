"""Put an evaluation's figures together: the one place where a report is made."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from trainer.data.counts import count_classes
from trainer.data.diagnoses import DIAGNOSES, LABELS, melanoma_or_nevus
from trainer.data.splits import TRAIN
from trainer.evaluation.engines import Engines
from trainer.evaluation.options import EvaluationOptions
from trainer.evaluation.robustness import other_diagnoses
from trainer.evaluation.subject import EvaluationSubject
from trainer.metrics.assess import assess
from trainer.metrics.discrimination import auroc, average_precision
from trainer.metrics.figures import EngineParity, Flow, SideSizes, Size
from trainer.metrics.missed import missed_melanomas
from trainer.metrics.seven_classes import describe_classes
from trainer.metrics.subgroups import estimate, share_of
from trainer.report.schema import Report
from trainer.report.write import write_report
from trainer.run_folder import METRICS_NAME
from trainer.thresholds.bootstrap import LesionBootstrap
from trainer.thresholds.calibration import brier
from trainer.thresholds.policies import BOOTSTRAP_SEED
from worker.atomic_files import write_text
from worker.inference.bundle import PolicyThreshold
from worker.inference.metrics import BundleMetrics, PolicyMetrics


def make_report(
    subject: EvaluationSubject,
    engines: Engines,
    scored: pd.DataFrame,
    others: pd.DataFrame,
    *,
    kind: Literal["test", "external"],
    parity: EngineParity,
    options: EvaluationOptions,
    started: float,
    **of_this_kind: Any,
) -> Report:
    """Compute every figure of a report.

    Args:
        subject: a run or a bundle.
        engines: its two engines.
        scored: melanomas and nevi as `trainer.evaluation.subject.EvaluationSubject.score` gives them.
        others: images of the other diagnoses, likewise. May be empty.
        kind: of the report.
        parity: of the engines.
        options: of which ``skip_robustness`` leaves out robustness and the other diagnoses.
        started: by `time.monotonic`.
        of_this_kind: fields of `Report` that only this kind of report has.
    """
    thresholds = subject.policies.thresholds
    told = len(others) > 0 and not options.skip_robustness
    robustness, heat_maps = None, None
    if not options.skip_robustness:
        options.say("Changing images and scoring them again: hair, ruler, ink, vignette, blur, JPEG")
        robustness = engines.robustness(scored)
        options.say("Blurring the pictures by their heat maps and scoring them again")
        heat_maps = engines.heat_maps(scored, next(iter(thresholds.values())).threshold)
    return Report(
        kind=kind,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - started),
        subject=subject.described,
        remarks=tuple(" ".join(remark.split()) for remark in options.remarks),
        policies=thresholds,
        refused_policies=subject.policies.refused,
        assessment=assess(scored, thresholds),
        missed=missed_melanomas(scored, thresholds),
        other_diagnoses=other_diagnoses(others, thresholds) if told else None,
        seven_classes=describe_classes(pd.concat((scored, others), ignore_index=True))
        if told and subject.described.classes == "seven"
        else None,
        engine_parity=parity,
        robustness=robustness,
        heat_maps=heat_maps,
        **of_this_kind,
    )


def write_evaluation(
    report: Report,
    scored: pd.DataFrame,
    folder: Path,
    *,
    pictures: bool,
    metrics: BundleMetrics | None = None,
) -> None:
    """Write ``report.json`` and ``report.html``, and last ``metrics.json``, which marks a complete evaluation.

    Args:
        report: the figures.
        scored: rows with ``image_id`` and ``path``, for the pictures.
        folder: to write into.
        pictures: whether ``report.html`` holds pictures of the missed melanomas.
        metrics: the figures for a bundle. None for images of another clinic, which have no ``metrics.json``.
    """
    paths = {str(row.image_id): Path(str(row.path)) for row in scored.itertuples()} if pictures else {}
    write_report(report, folder, paths)
    if metrics is not None:
        write_text(folder / METRICS_NAME, metrics.model_dump_json(indent=2) + "\n")


def bundle_metrics(
    test: pd.DataFrame,
    thresholds: dict[str, PolicyThreshold],
    *,
    kind: str,
    **of_this_run: Any,
) -> BundleMetrics:
    """The figures that a bundle carries, with lesion-clustered 95% intervals.

    Args:
        test: rows with ``label``, calibrated ``probability`` and ``lesion_id``.
        thresholds: chosen on validation.
        kind: of the split, as in `trainer.data.splits`.
        of_this_run: fields of `BundleMetrics` that only some runs have.
    """
    labels, probabilities = test["label"].to_numpy(), test["probability"].to_numpy()
    lesions = test["lesion_id"].to_numpy(object)
    bootstrap = LesionBootstrap(lesions, labels, seed=BOOTSTRAP_SEED)
    policies = {}
    for name, policy in thresholds.items():
        flagged = probabilities >= policy.threshold
        policies[name] = PolicyMetrics(
            threshold=policy.threshold,
            sensitivity=share_of(bootstrap, flagged, labels == 1, lesions),
            specificity=share_of(bootstrap, ~flagged, labels == 0, lesions),
            missed_melanoma_images=int((~flagged & (labels == 1)).sum()),
        )
    return BundleMetrics(
        **dict(count_classes(test)),
        split=f"test, {kind}, single pass",
        auroc=estimate(bootstrap(lambda weights: auroc(labels, probabilities, weights))),
        auprc=estimate(bootstrap(lambda weights: average_precision(labels, probabilities, weights))),
        brier=estimate(bootstrap(lambda weights: brier(labels, probabilities, weights))),
        policies=policies,
        intervals="95%, percentile, 1,000 resamples of whole lesions within each class",
        mean_probability=float(probabilities.mean()),
        **of_this_run,
    )


def count_participants(everything: pd.DataFrame, used: pd.DataFrame) -> Flow:
    """Who was left out where, and who is on which side.

    Args:
        everything: rows of the data set.
        used: those that the run uses, with ``split``.
    """

    def size(rows: pd.DataFrame) -> Size:
        return Size(lesions=rows["lesion_id"].nunique(), images=len(rows))

    two = melanoma_or_nevus(everything)
    kept = melanoma_or_nevus(used)
    trained_on = used[used["split"] == TRAIN]
    return Flow(
        all=size(everything),
        other_diagnoses=size(everything[~everything["dx"].isin(LABELS)]),
        two_classes=size(two),
        left_out_by_limit=len(two) - len(kept),
        splits={
            str(side): SideSizes(all=size(part), **{dx: size(part[part["dx"] == dx]) for dx in LABELS})
            for side, part in kept.groupby("split")
        },
        training={dx: size(trained_on[trained_on["dx"] == dx]) for dx in DIAGNOSES},
    )
