"""Evaluate a run or a bundle on images of another clinic: at its own thresholds, and after recalibration."""

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from trainer.data.counts import count_classes
from trainer.data.diagnoses import LABELS, melanoma_or_nevus
from trainer.data.external_labels import (
    read_external,
    refuse_own,
    refuse_recalibrated_on,
    refuse_training_images,
    without_label,
)
from trainer.evaluation.options import EvaluationOptions
from trainer.evaluation.subject import (
    EvaluationSubject,
    bundle_subject,
    is_bundle,
    load_worker_engine,
    require_run_or_bundle,
    run_subject,
    score_in_batches,
)
from trainer.metrics.figures import ExternalImages
from trainer.report.report_file import own_folder
from worker.inference.bundle import Bundle, load_bundle, sha256_of

if TYPE_CHECKING:
    from trainer.evaluation.engines import Engines
    from trainer.metrics.figures import EngineParity
    from trainer.report.schema import Report


def external_folder(run: Path, bundle: Bundle | None, folder: Path, labels: Path, *, skipped: bool = False) -> Path:
    """Make the folder of the report on a folder of images: ``external-<its name>``.

    The report on a run goes into the run folder. That on a bundle, which nobody should change, goes into the current
    folder, with the bundle's name and version in its own name.

    Args:
        run: the run folder, or the bundle's.
        bundle: loaded, or None for a run.
        folder: holds the images.
        labels: the CSV. Other labels of the same images have a report of their own.
        skipped: whether robustness is left out. Such a report does not replace a complete one.
    """
    name, about = f"external-{folder.resolve().name}", f"{folder.resolve()}\nlabels {sha256_of(labels)}"
    if skipped:
        name += "-without-robustness"
    if bundle is None:
        return own_folder(run, name, about)
    label = re.sub(r"[^\w.-]+", "-", f"{name}-{bundle.manifest.name}-{bundle.manifest.version}")
    return own_folder(Path.cwd(), label, f"{about}\n{bundle.sha256}")


def evaluate_external(
    model: Path, folder: Path, labels: Path, options: EvaluationOptions | None = None
) -> "tuple[Report, Path]":
    """Evaluate a run or a bundle on images of another clinic, and write ``report.json`` and ``report.html``.

    Nothing accesses the test split. The report goes to `external_folder`, with ``scored.csv`` beside it.

    Args:
        model: a run folder, whose Keras model predicts; or a bundle's, which predicts as a worker does.
        folder: holds the images.
        labels: CSV, see `trainer.data.external_labels.read_external`.
        options: of which the runs and the bundle to compare with are ignored.

    Returns:
        The report, and the folder that it was written to.

    Raises:
        MissingError: see `read_external`, or the run is not finished.
        InputError: see `read_external`, `refuse_own`, `refuse_training_images` and `refuse_recalibrated_on`.
        BundleError: the bundle was changed.
        DatasetError: images cannot be decoded; names all of them.
        EngineError: a network of the bundle cannot be loaded.
        RunError: Keras' backend is not TensorFlow.
    """
    options = options or EvaluationOptions()
    require_run_or_bundle(model)
    # Importing TensorFlow takes ten seconds. Mistakes in the labels are reported before.
    images = read_external(folder, labels)
    bundle = load_bundle(model) if is_bundle(model) else None
    if bundle is None:
        refuse_own(images, model)
    else:
        refuse_training_images(images, bundle)
        refuse_recalibrated_on(images, bundle)
    from trainer.evaluation.assembly import make_report, write_evaluation
    from trainer.metrics.cross_fitting import cross_fit

    started = time.monotonic()
    subject, engines = _load(model, bundle)
    options.say("Scoring the images")
    # All of them, so that every unreadable image is named at once.
    both = score_in_batches(subject, images)
    scored, others = melanoma_or_nevus(both), both[~both["dx"].isin(LABELS)]
    target = external_folder(model, bundle, folder, labels, skipped=options.skip_robustness)
    # Before any figure is computed: scoring takes longest.
    both.assign(label=both["dx"].map(LABELS).astype("Int64")).drop(columns="path").to_csv(
        target / "scored.csv", index=False
    )
    report = make_report(
        subject,
        engines,
        scored,
        others,
        kind="external",
        parity=_parity(subject, engines, scored),
        options=options,
        started=started,
        external=ExternalImages(
            **dict(count_classes(scored)),
            name=folder.resolve().name,
            other_diagnoses=len(others),
            lesion_ids_missing=int((~images["lesion_given"]).sum()),
            without_label=without_label(folder, images),
            ages_set_aside=tuple(age for age in images.get("age_set_aside", ()) if age),
        ),
        recalibrated=cross_fit(scored),
    )
    write_evaluation(report, scored, target, pictures=options.pictures)
    return report, target


def _parity(subject: EvaluationSubject, engines: "Engines", scored: pd.DataFrame) -> "EngineParity":
    """Compare the engines on a sample: all images would take as long again as the rest of the evaluation."""
    from trainer.evaluation.robustness import draw_sample

    again, inputs = subject.score(draw_sample(scored))
    return engines.parity(again, engines.other(inputs))


def _load(model: Path, bundle: Bundle | None) -> "tuple[EvaluationSubject, Engines]":
    from trainer.evaluation.engines import bundle_engines, run_engines
    from trainer.evaluation.trained_run import load_trained_run

    if bundle is None:
        trained_run = load_trained_run(model)
        return run_subject(model, trained_run), run_engines(trained_run)
    engine = load_worker_engine(bundle)
    return bundle_subject(bundle, engine), bundle_engines(bundle, engine)
