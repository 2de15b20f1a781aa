"""Evaluate a run or a bundle on images from elsewhere: with its own threshold, and after recalibration to the place."""

import itertools
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trainer.assess import assess, counts
from trainer.external_labels import read_external, refuse_own
from trainer.judged import bundle_as_judged, is_bundle, run_as_judged
from trainer.missed import missed_melanomas
from trainer.recalibration import cross_fit
from trainer.report_file import REPORT_FORMAT

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
        "recalibrated": cross_fit(scored),
        "missed": missed_melanomas(scored, thresholds),
    }
    report["seconds"] = round(time.monotonic() - started)
    paths = dict(zip(scored["image_id"], scored["path"], strict=True)) if pictures else {}
    write_report(report, target, {str(name): Path(path) for name, path in paths.items()})
    return report
