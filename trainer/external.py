"""Evaluate a run on images from elsewhere: with its own threshold, and after recalibration to the new place.

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
from trainer.missed import missed_melanomas
from trainer.policies import BOOTSTRAP_SEED, choose_thresholds
from trainer.report_file import REPORT_FORMAT
from trainer.splits import read_manifest
from trainer.strata import OLDEST, share_of

#: Parts of a cross-fit; fewer when a class has fewer lesions.
FOLDS = 5
#: Columns of the labels file; the others are optional.
REQUIRED = ("image", "label")
OPTIONAL = ("lesion_id", "age", "sex", "site")
_LABELS = {"melanoma": 1, "nevus": 0, "1": 1, "0": 0, "1.0": 1, "0.0": 0}
#: Names given in an error; the rest are counted.
_NAMED = 10
#: Holds the folder that a report is about; it stays on this machine.
_SOURCE = "folder.txt"


def read_external(folder: Path, labels: Path) -> pd.DataFrame:
    """Read a folder of images and a CSV of what they show.

    Args:
        folder: holds the images.
        labels: CSV with ``image`` (file name, relative to the folder), ``label`` (melanoma or nevus, or 1 or 0), and
            perhaps ``lesion_id``, ``age`` (years), ``sex`` and ``site``. An image without ``lesion_id`` is a lesion.

    Returns:
        Rows with ``image_id``, ``lesion_id``, ``lesion_given`` (whether the CSV named it), ``label`` (1 or 0),
        ``path``, the optional columns under HAM10000's names, and with ages ``age_set_aside``: whether one was given
        that no person has, or that is no number.

    Raises:
        FileNotFoundError: the folder, the CSV or an image is missing; the first images are named.
        ValueError: a column is missing, a label is unknown, an image is listed twice, a lesion has two labels, or a
            class does not occur.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"Received: {folder} as the folder of images, which is none. Expected: a folder.")
    if not labels.is_file():
        raise FileNotFoundError(
            f"Received: {labels} as labels, which is no file. Expected: a CSV with the columns {', '.join(REQUIRED)}."
        )
    try:
        rows = pd.read_csv(labels, dtype=str, skipinitialspace=True)
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise ValueError(
            f"Received: {labels.name}, which is not read as a table ({error}). Expected: a CSV in UTF-8, separated by "
            "commas, with the names of its columns in the first line."
        ) from None
    if missing := [name for name in REQUIRED if name not in rows.columns]:
        raise ValueError(
            f"Received: {labels.name} with the columns {', '.join(rows.columns)}. Missing: {', '.join(missing)}. "
            f"Expected: {', '.join(REQUIRED)}, and if known {', '.join(OPTIONAL)}; name them in the first line."
        )
    rows["image"] = rows["image"].fillna("").str.strip()
    if doubled := sorted(set(rows.loc[rows["image"].duplicated(), "image"])):
        raise ValueError(f"Received: {labels.name} with images listed twice: {_some(doubled)}. Expected: each once.")
    read = rows["label"].fillna("").str.strip().str.lower()
    if unknown := sorted(set(read) - set(_LABELS)):
        raise ValueError(
            f"Received: {labels.name} with the labels {_some([repr(name) for name in unknown])}. Expected: melanoma or "
            "nevus (or 1 or 0). Take out images of anything else: the model is judged on melanoma against nevus."
        )
    absent = [name for name in rows["image"] if not _is_inside(folder, name)]
    if absent:
        raise FileNotFoundError(
            f"Received: {labels.name} with {len(absent)} of {len(rows)} images that are not in {folder}: "
            f"{_some(absent)}. Expected: file names relative to the folder, endings included."
        )
    # A blank would make two lesions of one.
    named = rows["lesion_id"].fillna("").str.strip() if "lesion_id" in rows else pd.Series("", index=rows.index)
    images = pd.DataFrame(
        {
            "image_id": rows["image"],
            "lesion_id": named.where(named != "", rows["image"]),
            "lesion_given": named != "",
            "label": read.map(_LABELS).astype(int),
            "path": [str(folder / name) for name in rows["image"]],
        }
    )
    if "age" in rows:
        ages = pd.to_numeric(rows["age"], errors="coerce")
        images["age"] = ages.where(ages.between(0, OLDEST))
        images["age_set_aside"] = images["age"].isna() & (rows["age"].fillna("").str.strip() != "")
    for theirs, ours in (("sex", "sex"), ("site", "localization")):
        if theirs in rows:
            images[ours] = rows[theirs]
    found = counts(images)["images"]
    if not (found["melanoma"] and found["nevus"]):
        raise ValueError(
            f"Received: {labels.name} with {found['melanoma']} melanoma and {found['nevus']} nevus images. Expected: "
            "at least one of each; sensitivity needs the one and specificity the other."
        )
    labels_of = images.groupby("lesion_id")["label"].nunique()
    if torn := sorted(labels_of.index[labels_of > 1]):
        raise ValueError(
            f"Received: {labels.name} with lesions of two labels: {_some(torn)}. Expected: one label a lesion."
        )
    return images


def refuse_own(images: pd.DataFrame, run: Path) -> None:
    """Refuse images of the run's own data set: they are no images from elsewhere.

    Known by their names, without folder and ending; a copy under another name is not found.

    Args:
        images: as `read_external` gives them.
        run: the run folder.

    Raises:
        ValueError: counts and names them, with the side of the split that they are on.
    """
    manifest = read_manifest(run)
    side = dict(zip(manifest["image_id"].astype(str), manifest["split"].astype(str), strict=True))
    if own := [(name, side[stem]) for name in images["image_id"] if (stem := Path(name).stem) in side]:
        raise ValueError(
            f"Received: {len(own)} of {len(images)} images with names of the run's own data set: "
            f"{_some([f'{name} ({split})' for name, split in own])}. Expected: images that run {run.name} has never "
            "seen; on its own it was trained, or its thresholds were chosen, or they are its sealed test split."
        )


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


def evaluate_external(run: Path, folder: Path, labels: Path, *, pictures: bool = True) -> dict[str, Any]:
    """Judge a run on images from elsewhere, and write ``report.json`` and ``report.html``.

    The test split stays sealed. The report goes to `external_folder`, with ``scored.csv`` beside it.

    Args:
        run: the run folder.
        folder: holds the images.
        labels: CSV, see `read_external`.
        pictures: put the missed melanomas' pictures into ``report.html``.

    Returns:
        The report, as in ``report.json``.

    Raises:
        FileNotFoundError: see `read_external`, or the run is not finished.
        ValueError: see `read_external` and `refuse_own`.
    """
    # Importing TensorFlow takes ten seconds; bad labels should be told before.
    images = read_external(folder, labels)
    refuse_own(images, run)
    from trainer.evaluate import describe_run, load_frozen
    from trainer.report import write_report

    started = time.monotonic()
    frozen = load_frozen(run)
    scored, _ = frozen.score(images)
    target = external_folder(run, folder)
    target.mkdir(exist_ok=True)
    (target / _SOURCE).write_text(str(folder.resolve()))
    # Before any figure is computed: the scores took longest.
    scored.drop(columns="path").to_csv(target / "scored.csv", index=False)
    report: dict[str, Any] = {
        "format": REPORT_FORMAT,
        "kind": "external",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "run": describe_run(run, frozen),
        "external": {
            "name": folder.name,
            **counts(scored),
            "lesion_ids_missing": int((~scored["lesion_given"]).sum()),
            "ages_set_aside": int(scored["age_set_aside"].sum()) if "age_set_aside" in scored else 0,
        },
        "policies": {name: policy.model_dump() for name, policy in frozen.thresholds.items()},
        "refused_policies": frozen.policies.refused,
        "assessment": assess(scored, frozen.thresholds),
        "recalibrated": recalibrate(scored),
        "missed": missed_melanomas(scored, frozen.thresholds),
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


def _is_inside(folder: Path, name: str) -> bool:
    # By its name only: a folder of links to images elsewhere is fine, a name that leads out of it is a mistake.
    return bool(name) and not Path(name).is_absolute() and ".." not in Path(name).parts and (folder / name).is_file()


def _some(names: list[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
