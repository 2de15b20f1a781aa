"""Evaluate a bundle on the test split that it was made under: anyone with the data set can check its model card."""

import re
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from trainer.config import ALL_FOLDS, RunConfig
from trainer.data.counts import count_classes
from trainer.data.diagnoses import melanoma_or_nevus
from trainer.data.near_duplicates import linked_groups
from trainer.data.splits import LESION_DISJOINT, TEST, draw_split, manifest_sha256
from trainer.data.test_access_log import log_test_access, read_test_accesses
from trainer.errors import InputError
from trainer.evaluation.assembly import bundle_metrics, count_participants, make_report, write_evaluation
from trainer.evaluation.engines import bundle_engines
from trainer.evaluation.of_run import ScoredTest
from trainer.evaluation.options import EvaluationOptions
from trainer.evaluation.subject import bundle_subject, load_worker_engine
from trainer.metrics.leakage import check_leakage
from trainer.metrics.sources import first_data_set, source_metrics
from trainer.networks.openvino_conversion import require_tensorflow
from trainer.report.report_file import own_folder
from trainer.training.fit import read_scanned
from worker.inference.bundle import Bundle, load_bundle
from worker.inference.metrics import BundleMetrics, ClassCounts


def evaluate_bundle(
    datasets: Sequence[Path], folder: Path, options: EvaluationOptions
) -> tuple[BundleMetrics, Bundle, Path]:
    """Evaluate a bundle as a worker runs it, with its own calibration and thresholds, and write the report.

    A bundle names its split by a SHA-256 and holds no list of images, so the split is drawn again from the data set.
    The report goes to ``test-<name>-<version>`` in the current folder, where the access to the test split is logged.

    Args:
        datasets: folders of the data sets.
        folder: of the bundle.
        options: of which the runs and the bundle to compare with are ignored.

    Returns:
        The figures as in ``metrics.json``; the bundle; and the folder of the report.

    Raises:
        BundleError: the bundle was changed.
        EngineError: a network of the bundle cannot be loaded.
        RunError: Keras' backend is not TensorFlow.
        DatasetError: the data set is not as published, or images do not decode.
        InputError: the bundle was made under another split, or from some of the lesions only.
    """
    require_tensorflow()
    started = time.monotonic()
    bundle = load_bundle(folder)
    with_split = _as_split(datasets, bundle, options.cache)
    _refuse_other_images(with_split, bundle)
    manifest, engine = bundle.manifest, load_worker_engine(bundle)
    engines = bundle_engines(bundle, engine)
    name = re.sub(r"[^\w.-]+", "-", f"test-{manifest.name}-{manifest.version}")
    target = own_folder(Path.cwd(), name, bundle.sha256)
    log_test_access(target, "evaluate")
    subject = bundle_subject(
        bundle, engine, split_kind=LESION_DISJOINT, test_accesses=tuple(read_test_accesses(target))
    )
    scored = ScoredTest(subject, with_split, target, options)
    sources = scored.describe_sources(with_split)
    metrics = bundle_metrics(scored.test, manifest.thresholds, kind=LESION_DISJOINT, sources=source_metrics(sources))
    report = make_report(
        subject,
        engines,
        scored.test,
        scored.others,
        kind="test",
        parity=engines.parity(scored.test, engines.other(scored.inputs)),
        options=options,
        started=started,
        flow=count_participants(with_split, with_split),
        leakage=check_leakage(with_split, options.cache),
        crossfit=manifest.metrics.crossfit,
        sources=sources,
    )
    write_evaluation(report, scored.test, target, pictures=options.pictures, metrics=metrics)
    return metrics, bundle, target


def _as_split(datasets: Sequence[Path], bundle: Bundle, cache: Path) -> pd.DataFrame:
    """The data set under the bundle's split: that of the defaults, or that with everything but test in training."""
    config = RunConfig()
    everything, scan = read_scanned(datasets, cache, config)
    everything["group"] = linked_groups(
        everything["lesion_id"], scan.thumbnails, config.near_duplicates, everything["patient_id"]
    )
    named, found = bundle.manifest.split_manifest_sha256, []
    for fold in ("", ALL_FOLDS):
        everything["split"] = draw_split(everything, kind=config.split, seed=config.split_seed, fold=fold)
        found.append(manifest_sha256(everything))
        if found[-1] == named:
            return everything
    raise InputError(
        f"The bundle {bundle.manifest.name} {bundle.manifest.version} was made under the split {named[:12]}. This data "
        f"set gives {found[0][:12]} with the defaults of `dermq-train fit`, and {found[1][:12]} with --fold "
        f"{ALL_FOLDS}. Pass the data set that the bundle was made from. A bundle made with --split-seed, "
        "--near-duplicates, --without-source or --skip-corrupt is evaluated as a run: `dermq-train evaluate RUN`."
    )


def _refuse_other_images(with_split: pd.DataFrame, bundle: Bundle) -> None:
    """Refuse a bundle whose figures are of fewer images than its split has: it was trained with ``--limit``."""
    manifest = bundle.manifest
    # The figures of a recalibrated bundle are of the images of its clinic.
    if manifest.recalibration is not None:
        return
    stated = manifest.metrics.images
    found = count_classes(first_data_set(melanoma_or_nevus(with_split[with_split["split"] == TEST]))).images
    if stated != found:
        raise InputError(
            f"The figures of the bundle {manifest.name} {manifest.version} are of {_counted(stated)} images, and its "
            f"test split has {_counted(found)}. It was made with --limit. Evaluate it as a run: `dermq-train evaluate "
            "RUN`."
        )


def _counted(images: ClassCounts) -> str:
    return f"{images.melanoma} melanoma and {images.nevus} nevus"
