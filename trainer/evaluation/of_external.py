"""Evaluate a run or a bundle on images from elsewhere: with its own threshold, and after recalibration to the place."""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from trainer.data.external_labels import (
    read_external,
    refuse_own,
    refuse_recalibrated_on,
    refuse_training_images,
    without_label,
)
from trainer.data.ham10000 import LABELS, melanoma_or_nevus
from trainer.evaluation.subject import (
    EvaluationSubject,
    bundle_subject,
    is_bundle,
    load_service,
    require_run_or_bundle,
    run_subject,
    score_in_batches,
)
from trainer.metrics.assess import assess, counts
from trainer.metrics.cross_fitting import cross_fit
from trainer.metrics.missed import missed_melanomas
from trainer.report.report_file import REPORT_FORMAT, own_folder
from worker.inference.bundle import Bundle, load_bundle, sha256_of

if TYPE_CHECKING:
    from trainer.evaluation.engines import Engines


def external_folder(run: Path, bundle: Bundle | None, folder: Path, labels: Path, *, quick: bool = False) -> Path:
    """Make the folder of the report on a folder of images: ``external-<its name>``.

    Of a run into its folder. Of a bundle, which nobody should change, into the current folder, under the bundle's name
    and version too.

    Args:
        run: the run folder, or the bundle's.
        bundle: loaded, when it is one.
        folder: holds the images.
        labels: the CSV; other labels of the same images have a report of their own.
        quick: of a report that leaves things out, which takes no whole one's place.
    """
    name, about = f"external-{folder.resolve().name}", f"{folder.resolve()}\nlabels {sha256_of(labels)}"
    if quick:
        name += "-quick"
    if bundle is None:
        return own_folder(run, name, about)
    label = re.sub(r"[^\w.-]+", "-", f"{name}-{bundle.manifest.name}-{bundle.manifest.version}")
    return own_folder(Path.cwd(), label, f"{about}\n{bundle.sha256}")


def evaluate_external(
    subject: Path,
    folder: Path,
    labels: Path,
    *,
    pictures: bool = True,
    quick: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[dict[str, Any], Path]:
    """Judge a run or a bundle on images from elsewhere, and write ``report.json`` and ``report.html``.

    The test split stays sealed. The report goes to `external_folder`, with ``scored.csv`` beside it.

    Args:
        subject: a run folder, whose Keras model is asked; or a bundle's, which is asked as a worker does.
        folder: holds the images.
        labels: CSV, see `trainer.data.external_labels.read_external`.
        pictures: put the missed melanomas' pictures into ``report.html``.
        quick: leave out robustness and the figures of the other diagnoses.
        say: takes a line about what is being done, for the person who waits.

    Returns:
        The report, as in ``report.json``, and the folder that it was written to.

    Raises:
        FileNotFoundError: see `read_external`, or the run is not finished.
        ValueError: see `read_external`, `refuse_own`, `refuse_training_images` and `refuse_recalibrated_on`.
        BundleError: the bundle was changed.
        DatasetError: images cannot be decoded; all of them are named.
        EngineError: a network of the bundle cannot be loaded.
        RunError: Keras' backend is not TensorFlow.
    """
    require_run_or_bundle(subject)
    # Importing TensorFlow takes ten seconds; bad labels should be told before.
    images = read_external(folder, labels)
    bundle = load_bundle(subject) if is_bundle(subject) else None
    if bundle is None:
        refuse_own(images, subject)
    else:
        refuse_training_images(images, bundle)
        refuse_recalibrated_on(images, bundle)
    from trainer.evaluation.of_run import SAY_ROBUSTNESS, describe_others
    from trainer.report import write_report

    started = time.monotonic()
    model, engines = _load(subject, bundle)
    say("Scoring the images")
    # All of them, so that whatever cannot be read is named at once.
    both = score_in_batches(model, images)
    scored, others = melanoma_or_nevus(both), both[~both["dx"].isin(LABELS)]
    target = external_folder(subject, bundle, folder, labels, quick=quick)
    # Before any figure is computed: the scores took longest.
    both.assign(label=both["dx"].map(LABELS).astype("Int64")).drop(columns="path").to_csv(
        target / "scored.csv", index=False
    )
    thresholds = model.policies.thresholds
    report: dict[str, Any] = {
        "format": REPORT_FORMAT,
        "kind": "external",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "run": model.described,
        "external": {
            "name": folder.resolve().name,
            **counts(scored),
            "other_diagnoses": len(others),
            "lesion_ids_missing": int((~images["lesion_given"]).sum()),
            "without_label": without_label(folder, images),
            "ages_set_aside": [age for age in images.get("age_set_aside", ()) if age],
        },
        "policies": {name: policy.model_dump() for name, policy in thresholds.items()},
        "refused_policies": model.policies.refused,
        "assessment": assess(scored, thresholds),
        "recalibrated": cross_fit(scored),
        "missed": missed_melanomas(scored, thresholds),
        **describe_others(model, scored, others.iloc[:0] if quick else others),
        "engine_parity": _parity(model, engines, scored),
        "robustness": None,
    }
    if not quick:
        say(SAY_ROBUSTNESS)
        report["robustness"] = engines.robustness(scored)
    report["seconds"] = round(time.monotonic() - started)
    paths = dict(zip(scored["image_id"], scored["path"], strict=True)) if pictures else {}
    write_report(report, target, {str(name): Path(path) for name, path in paths.items()})
    return report, target


def _parity(model: EvaluationSubject, engines: "Engines", scored: pd.DataFrame) -> dict[str, Any]:
    """The two engines on the images, or on some of many: the slower one would take as long again as all else."""
    from trainer.evaluation.robustness import draw_some

    again, inputs = model.score(draw_some(scored))
    return engines.parity(again, engines.other(inputs))


def _load(subject: Path, bundle: Bundle | None) -> "tuple[EvaluationSubject, Engines]":
    from trainer.evaluation.engines import bundle_engines, run_engines
    from trainer.evaluation.trained_run import load_trained_run

    if bundle is None:
        trained_run = load_trained_run(subject)
        return run_subject(subject, trained_run), run_engines(trained_run)
    service = load_service(bundle)
    return bundle_subject(bundle, service), bundle_engines(bundle, service)
