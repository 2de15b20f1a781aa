"""The report's sections in their order, and the figures at its top."""

from typing import Any

from trainer.report.crossfit import crossfit
from trainer.report.document import Document, Key, Section, counted, interval, number, percent_interval
from trainer.report.groups import other_diagnoses, seven_classes, sources, strata
from trainer.report.limits import coverage, missed, parity, seeds
from trainer.report.participants import external_images, leakage, participants
from trainer.report.performance import calibration, decision, discrimination, policies, predictive, recalibrated
from trainer.report.robustness import robustness

_WARNING = (
    "Research only, not a medical device. A low score means a lower priority in a worklist and nothing else: it is no "
    "reason to leave a lesion unexamined."
)
#: Of the pictures of missed melanomas, by the kind of the report.
_KEEP = {
    "test": "The pictures in this file belong to the data set; keep it on this machine.",
    "external": "The pictures in this file are of your patients; keep it on this machine.",
}


def document(report: dict[str, Any], pictures: dict[str, str]) -> Document:
    """The page of a report.

    Args:
        report: the figures, as in ``report.json``.
        pictures: ``data:`` address of each picture by the name of its image; may be empty.
    """
    external = report["kind"] == "external"
    run = report["run"]
    # A bundle holds no other runs to compare with.
    alone = external or "bundle_sha256" in run
    found: list[Section | None] = [
        external_images(report) if external else participants(report),
        None if external else leakage(report["leakage"]),
        policies(report),
        discrimination(report),
        calibration(report, "raw output", "after calibration"),
        None if external else crossfit(report),
        recalibrated(report) if external else None,
        predictive(report),
        decision(report),
        strata(report),
        None if alone else sources(report),
        other_diagnoses(report),
        seven_classes(report),
        robustness(report),
        coverage(report),
        None if alone else seeds(report),
        parity(report),
        missed(report, pictures),
    ]
    config = run["config"]
    what = f"images of {report['external']['name']}" if external else "the sealed test split"
    return Document(
        title=f"{'Bundle' if 'bundle_sha256' in run else 'Run'} {run['name']} on {what}",
        subtitle=(
            f"Melanoma against nevus on dermoscopic images. {config['backbone']}, {config['size']} x {config['size']} "
            f"pixels, trained on {config['classes']} classes{_taught(run)}{_without(run)}, {_which(run)}. "
            f"Made {report['created'][:10]}."
        ),
        warning=" ".join((_WARNING, *([_KEEP[report["kind"]]] if pictures else []))),
        keys=_keys(report),
        sections=[section for section in found if section is not None],
        footer=_footer(report),
    )


def _taught(run: dict[str, Any]) -> str:
    teachers = run.get("teachers")
    return f", taught by {counted(len(teachers), 'run')}" if teachers else ""


def _without(run: dict[str, Any]) -> str:
    source = run["config"].get("without_source")
    return f", without the source {source}" if source else ""


def _which(run: dict[str, Any]) -> str:
    if bundle := run.get("bundle_sha256"):
        return f"SHA-256 {bundle[:12]}"
    if members := run.get("averaged"):
        return f"average of the seeds {', '.join(str(member['seed']) for member in members)}"
    return f"seed {run['config']['seed']}"


def _keys(report: dict[str, Any]) -> list[Key]:
    assessment = report["assessment"]
    counts = assessment["counts"]
    keys = [
        Key(
            label="Test melanomas" if report["kind"] == "test" else "Melanomas",
            value=f"{counts['lesions']['melanoma']:,}",
            detail=f"lesions, {counted(counts['images']['melanoma'], 'image')}; beside "
            f"{counted(counts['lesions']['nevus'], 'nevus', 'nevi')} of {counted(counts['images']['nevus'], 'image')}",
        ),
        Key(
            label="AUROC, images",
            value=number(assessment["images"]["auroc"]["value"]),
            detail=f"95% interval {_bounds(assessment['images']['auroc'])}",
        ),
    ]
    for name, policy in assessment["images"]["policies"].items():
        keys.append(
            Key(
                label=f"Sensitivity, policy {name}",
                value=percent_interval({**policy["sensitivity"], "low": None}),
                detail=f"specificity {percent_interval({**policy['specificity'], 'low': None})}; "
                f"{policy['missed']} of {counts['images']['melanoma']} melanoma images missed",
            )
        )
    if (proven := assessment["histology_only"]) is not None and proven["auroc"] is not None:
        keys.append(
            Key(
                label="AUROC, histology-proven only",
                value=number(proven["auroc"]["value"]),
                detail=f"95% interval {_bounds(proven['auroc'])}; "
                f"{counted(proven['lesions']['nevus'], 'nevus', 'nevi')} that someone found worth excising",
            )
        )
    slope = assessment["calibration"]["after"]["slope"]
    keys.append(
        Key(
            label="Calibration error (ECE)",
            value=number(assessment["calibration"]["after"]["ece"]["value"]),
            detail=f"slope {interval(slope, 2)}",
        )
    )
    return keys


def _bounds(estimate: dict[str, Any]) -> str:
    return "not known" if estimate["low"] is None else f"{number(estimate['low'])} to {number(estimate['high'])}"


def _subject(run: dict[str, Any]) -> str:
    return "bundle in this folder, beside those of the run that it is of" if "bundle_sha256" in run else "run"


def _footer(report: dict[str, Any]) -> list[str]:
    run = report["run"]
    command = f"dermq-train evaluate {'BUNDLE' if 'bundle_sha256' in run else run['name']}" + (
        " --external FOLDER --labels CSV" if report["kind"] == "external" else ""
    )
    if report["robustness"] is None:
        command += " --quick"
    lines = [
        f"Made by `{command}` in {report['seconds']} seconds; every figure is in report.json beside this file.",
        "Intervals are 95% percentile intervals of 1,000 resamples of whole lesions within each class, so that several "
        "images of one lesion do not count as independent; of a share where all or none are counted, exact ones "
        "(Clopper-Pearson) of lesions.",
        f"Split manifest SHA-256 {run['split_sha256']}.",
    ]
    if report["kind"] == "test":
        times = len(run["test_accesses"])
        lines.append(
            f"The test split was opened {'once' if times == 1 else f'{times} times'} for this {_subject(run)}: "
            + ", ".join(line.split()[0] for line in run["test_accesses"])
            + "."
        )
    return lines
