"""Judge a bundle on the test split that it was made under: the figures of its card, by whoever has the data set."""

import re
import time
from pathlib import Path
from typing import Any

import pandas as pd

from trainer.config import ALL_FOLDS, RunConfig
from trainer.data.ham10000 import melanoma_or_nevus
from trainer.data.near_duplicates import linked_groups
from trainer.data.splits import LESION_DISJOINT, TEST, draw_split, manifest_sha256
from trainer.evaluation.engines import bundle_engines
from trainer.evaluation.of_run import SAY_ROBUSTNESS, EvaluationOptions, flow, open_test, write_on_test
from trainer.evaluation.subject import EvaluationSubject, bundle_subject, load_service
from trainer.evaluation.test_access_log import log_test_access, read_test_accesses
from trainer.metrics.assess import counts
from trainer.metrics.leakage import check_leakage
from trainer.networks.openvino_conversion import require_tensorflow
from trainer.report.report_file import own_folder
from trainer.training.fit import read_scanned
from worker.inference.bundle import Bundle, load_bundle


def evaluate_bundle(dataset: Path, folder: Path, options: EvaluationOptions) -> tuple[dict[str, Any], Bundle, Path]:
    """Judge a bundle as a worker runs it, with its own calibration and thresholds, and write the report.

    A bundle names its split by a SHA-256 and holds no list of images; the split is drawn anew from the data set. The
    report goes to ``test-<name>-<version>`` in the current folder, and its opening of the test split is logged there.

    Args:
        dataset: the HAM10000 folder.
        folder: of the bundle.
        options: of which ``seeds``, ``also`` and ``bundle`` belong to runs, and are not looked at.

    Returns:
        The metrics, as in ``metrics.json``; the bundle; and the folder of the report.

    Raises:
        BundleError: the bundle was changed.
        EngineError: a network of the bundle cannot be loaded.
        RunError: Keras' backend is not TensorFlow.
        DatasetError: the data set is not as published, or images do not decode.
        ValueError: the bundle was made under another split, or from some of the lesions alone.
    """
    require_tensorflow()
    started = time.monotonic()
    bundle = load_bundle(folder)
    with_split = _as_split(dataset, bundle, options.cache)
    _refuse_other_images(with_split, bundle)
    manifest, service = bundle.manifest, load_service(bundle)
    engines = bundle_engines(bundle, service)
    subject = bundle_subject(bundle, service)
    name = re.sub(r"[^\w.-]+", "-", f"test-{manifest.name}-{manifest.version}")
    target = own_folder(Path.cwd(), name, bundle.sha256)
    log_test_access(target, "evaluate")
    described = {**subject.described, "split_kind": LESION_DISJOINT, "test_accesses": read_test_accesses(target)}
    opened = open_test(
        EvaluationSubject(described=described, policies=subject.policies, score=subject.score),
        with_split,
        target,
        options,
        kind=LESION_DISJOINT,
    )
    report = opened.report | {
        "flow": flow(with_split, with_split),
        "leakage": check_leakage(with_split, options.cache),
        "crossfit": manifest.metrics.get("crossfit"),
        "seeds": {"runs": [], "figures": {}, "average": None},
        "sources_left_out": [],
        "engine_parity": engines.parity(opened.test, engines.other(opened.inputs)),
    }
    if not options.quick:
        options.say(SAY_ROBUSTNESS)
        report["robustness"] = engines.robustness(opened.test)
    write_on_test(report, opened, target, options, started)
    return opened.metrics, bundle, target


def _as_split(dataset: Path, bundle: Bundle, cache: Path) -> pd.DataFrame:
    """The data set under the split of the defaults, or under that with all but test in training: the bundle's."""
    config = RunConfig()
    everything, seen = read_scanned(dataset, cache, config)
    everything["group"] = linked_groups(everything["lesion_id"], seen.thumbnails, config.near_duplicates)
    named, found = bundle.manifest.split_manifest_sha256, []
    for fold in ("", ALL_FOLDS):
        everything["split"] = draw_split(everything, kind=config.split, seed=config.split_seed, fold=fold)
        found.append(manifest_sha256(everything))
        if found[-1] == named:
            return everything
    raise ValueError(
        f"Received: bundle {bundle.manifest.name} {bundle.manifest.version} of split {named[:12]}, and a data set "
        f"whose split by the defaults of `dermq-train fit` is {found[0][:12]}, or {found[1][:12]} with --fold "
        f"{ALL_FOLDS}. Expected: the data set and split that it was made under. A bundle made with --split-seed, "
        "--near-duplicates, --without-source or --skip-corrupt is subject by its run: `dermq-train evaluate RUN`."
    )


def _refuse_other_images(with_split: pd.DataFrame, bundle: Bundle) -> None:
    """Refuse a bundle whose card is of fewer images than its split has: of a run with ``--limit``."""
    manifest = bundle.manifest
    # The figures of a recalibrated bundle are of the images of its place.
    stated = manifest.metrics.get("images") if manifest.recalibration is None else None
    found = counts(melanoma_or_nevus(with_split[with_split["split"] == TEST]))["images"]
    if stated not in (None, found):
        raise ValueError(
            f"Received: bundle {manifest.name} {manifest.version}, whose card is of {_told(stated)} images of its test "
            f"split, which has {_told(found)}. Expected: a bundle of a whole run; one that was made with --limit is "
            "subject by its run: `dermq-train evaluate RUN`."
        )


def _told(images: dict[str, int]) -> str:
    return f"{images['melanoma']} melanoma and {images['nevus']} nevus"
