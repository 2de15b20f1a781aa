"""Evaluate a run or a bundle on images from elsewhere: with its own threshold, and after recalibration to the place.

Recalibration is cross-fitted: every image is judged by a calibration and thresholds that were fitted on other lesions,
so the figures after it are not flattered by it.
"""

import itertools
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from trainer.assess import assess, calibration_measures, counts
from trainer.bootstrap import LesionBootstrap
from trainer.calibration import fit_platt
from trainer.external_labels import read_external, refuse_own
from trainer.judged import bundle_as_judged, is_bundle, run_as_judged
from trainer.missed import missed_melanomas
from trainer.policies import BOOTSTRAP_SEED, choose_thresholds
from trainer.report_file import REPORT_FORMAT
from trainer.strata import share_of

#: Parts of a cross-fit; fewer when a class has fewer lesions.
FOLDS = 5
#: Holds the folder that a report is about; it stays on this machine.
_SOURCE = "folder.txt"


def external_folder(run: Path, folder: Path) -> Path:
    """Where the report on a folder of images goes: ``external-<its name>``, numbered when that is another folder's.

    Args:
        run: the run folder.
        folder: holds the images.
    """
    source, name = str(folder.resolve()), f"external-{folder.resolve().name}"
    names = itertools.chain((name,), (f"{name}-{number}" for number in itertools.count(2)))
    return next(run / name for name in names if _source_of(run / name) in (None, source))


def _source_of(target: Path) -> str | None:
    """The folder that a report is about; None where there is no report yet, empty where it is not known."""
    if not target.exists():
        return None
    return (target / _SOURCE).read_text() if (target / _SOURCE).is_file() else ""


def reports_folder(judged: Path) -> Path:
    """Where reports go: into the run folder; for a bundle, which nobody should change, into the current folder."""
    return Path.cwd() if is_bundle(judged) else judged


def evaluate_external(judged: Path, folder: Path, labels: Path, *, pictures: bool = True) -> dict[str, Any]:
    """Judge a run or a bundle on images from elsewhere, and write ``report.json`` and ``report.html``.

    The test split stays sealed. The report goes to `external_folder`, with ``scored.csv`` beside it.

    Args:
        judged: a run folder, whose Keras model is asked; or a bundle's, which is asked as a worker does.
        folder: holds the images.
        labels: CSV, see `trainer.external_labels.read_external`.
        pictures: put the missed melanomas' pictures into ``report.html``.

    Returns:
        The report, as in ``report.json``.

    Raises:
        FileNotFoundError: see `read_external`, or the run is not finished.
        ValueError: see `read_external` and `refuse_own`.
        BundleError: the bundle was changed.
    """
    # Importing TensorFlow takes ten seconds; bad labels should be told before.
    images = read_external(folder, labels)
    refuse_own(images, judged)
    from trainer.report import write_report

    started = time.monotonic()
    model = bundle_as_judged(judged) if is_bundle(judged) else run_as_judged(judged)
    scored = model.score(images)
    target = external_folder(reports_folder(judged), folder)
    target.mkdir(exist_ok=True)
    (target / _SOURCE).write_text(str(folder.resolve()))
    # Before any figure is computed: the scores took longest.
    scored.drop(columns="path").to_csv(target / "scored.csv", index=False)
    thresholds = model.policies.thresholds
    report: dict[str, Any] = {
        "format": REPORT_FORMAT,
        "kind": "external",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "run": model.described,
        "external": {
            "name": folder.name,
            **counts(scored),
            "lesion_ids_missing": int((~scored["lesion_given"]).sum()),
            "ages_set_aside": int(scored["age_set_aside"].sum()) if "age_set_aside" in scored else 0,
        },
        "policies": {name: policy.model_dump() for name, policy in thresholds.items()},
        "refused_policies": model.policies.refused,
        "assessment": assess(scored, thresholds),
        "recalibrated": recalibrate(scored),
        "missed": missed_melanomas(scored, thresholds),
    }
    report["seconds"] = round(time.monotonic() - started)
    paths = dict(zip(scored["image_id"], scored["path"], strict=True)) if pictures else {}
    write_report(report, target, {str(name): Path(path) for name, path in paths.items()})
    return report


def recalibrate(images: pd.DataFrame) -> dict[str, Any]:
    """Calibration and thresholds fitted on the images themselves, each image judged by a fit on other lesions.

    Args:
        images: rows with ``label``, ``lesion_id`` and ``raw_probability``.

    Returns:
        ``folds``; ``calibration`` (the measures after); ``policies`` (sensitivity and specificity over all folds, each
        with the thresholds of its folds); ``refused``: why something could not be done. With too few lesions of a class
        to fold, only ``refused``.
    """
    labels = images["label"].to_numpy()
    lesions = images["lesion_id"].to_numpy(object)
    raw = images["raw_probability"].to_numpy()
    fewest = min(counts(images)["lesions"].values())
    folds = min(FOLDS, fewest)
    if folds < 2:
        return {"refused": {"recalibration": f"{fewest} lesion of a class is too few to fit on others"}}
    calibrated = np.empty(len(images))
    called: dict[str, npt.NDArray[np.bool_]] = {}
    thresholds: dict[str, list[float]] = {}
    refused: dict[str, str] = {}
    try:
        for rest, held_out in _folds(labels, lesions, folds):
            calibration = fit_platt(labels[rest], raw[rest])
            calibrated[held_out] = calibration.apply(raw[held_out])
            chosen, not_supported = choose_thresholds(labels[rest], calibration.apply(raw[rest]), lesions[rest])
            refused |= not_supported
            for name, threshold in chosen.items():
                flags = called.setdefault(name, np.zeros(len(images), bool))
                flags[held_out] = calibrated[held_out] >= threshold
                thresholds.setdefault(name, []).append(threshold)
    except ValueError as error:
        return {"refused": {"recalibration": str(error)}}
    bootstrap = LesionBootstrap(lesions, labels, seed=BOOTSTRAP_SEED)
    return {
        "folds": folds,
        "calibration": calibration_measures(labels, calibrated, bootstrap),
        "policies": {
            name: {
                "thresholds": thresholds[name],
                "sensitivity": share_of(bootstrap, flags, labels == 1, lesions),
                "specificity": share_of(bootstrap, ~flags, labels == 0, lesions),
                "missed": int((~flags & (labels == 1)).sum()),
            }
            for name, flags in called.items()
            if name not in refused
        },
        "refused": refused,
    }


def _folds(
    labels: npt.NDArray[np.int64], lesions: npt.NDArray[np.object_], folds: int
) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """Whole lesions, each in one held-out part; both classes in every part."""
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=BOOTSTRAP_SEED)
    yield from splitter.split(labels, labels, lesions.astype(str))
