"""The report's sections in their order, and the figures at its top."""

from trainer.report.clinics import clinics
from trainer.report.crossfit import crossfit
from trainer.report.document import Document, Key, Section, counted, interval, number, percent
from trainer.report.groups import other_diagnoses, seven_classes, sources, subgroups
from trainer.report.heat_maps import heat_maps
from trainer.report.limits import coverage, missed, parity, seeds
from trainer.report.participants import external_images, leakage, participants
from trainer.report.performance import calibration, decision, discrimination, policies, predictive, recalibrated
from trainer.report.robustness import robustness
from trainer.report.schema import Report, Subject
from worker.inference.metrics import Estimate

_WARNING = (
    "Research only, not a medical device. A low score means a lower priority in a worklist and nothing else. It is no "
    "reason to leave a lesion unexamined."
)
#: A sentence on the pictures of missed melanomas, by kind of report.
_KEEP = {
    "test": "The pictures in this file belong to the data set: keep the file on this machine.",
    "external": "The pictures in this file are of your patients: keep the file on this machine.",
}


def document(report: Report, pictures: dict[str, str]) -> Document:
    """The page of a report.

    Args:
        report: the figures.
        pictures: ``data:`` address of each picture by the name of its image. May be empty.
    """
    subject = report.subject
    # A bundle has no other runs to compare with.
    alone = report.kind == "external" or subject.is_bundle
    found: list[Section | None] = [
        external_images(report, report.external) if report.external else None,
        participants(report, report.flow) if report.flow else None,
        leakage(report.leakage) if report.leakage else None,
        policies(report),
        discrimination(report),
        clinics(report),
        calibration(report, "raw output", "after calibration"),
        crossfit(report),
        recalibrated(report, report.recalibrated) if report.recalibrated else None,
        predictive(report),
        decision(report),
        subgroups(report),
        None if alone else sources(report),
        other_diagnoses(report),
        seven_classes(report),
        robustness(report),
        heat_maps(report),
        coverage(report),
        None if alone else seeds(report),
        parity(report),
        missed(report, pictures),
    ]
    what = f"images of {report.external.name}" if report.external else "the test split"
    return Document(
        title=f"{'Bundle' if subject.is_bundle else 'Run'} {subject.name} on {what}",
        subtitle=(
            f"Melanoma against nevus on dermoscopic images. {subject.backbone}, {subject.size} x {subject.size} "
            f"pixels, trained on {subject.classes} classes{_training(subject)}. Made {report.created[:10]}."
        ),
        warning=" ".join((_WARNING, *([_KEEP[report.kind]] if pictures else []))),
        keys=_keys(report),
        sections=[section for section in found if section is not None],
        footer=_footer(report),
    )


def _training(subject: Subject) -> str:
    """What distinguishes this model from others of its kind."""
    if (origin := subject.origin) is None:
        return f", SHA-256 {(subject.bundle_sha256 or '')[:12]}"
    teachers = f", taught by {counted(len(origin.teachers), 'run')}" if origin.teachers else ""
    source = f", without the source {origin.config.without_source}" if origin.config.without_source else ""
    return f"{teachers}{source}, seed {origin.config.seed}"


def _keys(report: Report) -> list[Key]:
    assessment = report.assessment
    counts = assessment.counts
    keys = [
        Key(
            label="Test melanomas" if report.kind == "test" else "Melanomas",
            value=f"{counts.lesions.melanoma:,}",
            detail=f"lesions, {counted(counts.images.melanoma, 'image')}; beside "
            f"{counted(counts.lesions.nevus, 'nevus', 'nevi')} of {counted(counts.images.nevus, 'image')}",
        ),
        Key(
            label="AUROC, images",
            value=number(assessment.images.auroc.value),
            detail=f"95% interval {_bounds(assessment.images.auroc)}",
        ),
    ]
    for name, policy in assessment.images.policies.items():
        keys.append(
            Key(
                label=f"Sensitivity, policy {name}",
                value=percent(policy.sensitivity.value),
                detail=f"specificity {percent(policy.specificity.value)}; "
                f"{policy.missed} of {counts.images.melanoma} melanoma images missed",
            )
        )
    if (proven := assessment.histology_only) is not None and proven.auroc is not None:
        keys.append(
            Key(
                label="AUROC, histology-proven only",
                value=number(proven.auroc.value),
                detail=f"95% interval {_bounds(proven.auroc)}; "
                f"{counted(proven.lesions.nevus, 'nevus', 'nevi')} that someone found worth excising",
            )
        )
    slope = assessment.calibration.after.slope
    keys.append(
        Key(
            label="Calibration error (ECE)",
            value=number(assessment.calibration.after.ece.value),
            detail=f"slope {interval(slope, 2)}",
        )
    )
    return keys


def _bounds(estimate: Estimate) -> str:
    return "not known" if estimate.low is None else f"{number(estimate.low)} to {number(estimate.high)}"


def _footer(report: Report) -> list[str]:
    subject = report.subject
    command = f"dermq-train evaluate {'BUNDLE' if subject.is_bundle else subject.name}"
    if report.kind == "external":
        command += " --external FOLDER --labels CSV"
    if report.robustness is None:
        command += " --skip-robustness"
    lines = [
        f"Made by `{command}` in {report.seconds} seconds. report.json beside this file has every figure.",
        "Intervals are 95% percentile intervals of 1,000 resamples of whole lesions within each class, because "
        "images of one lesion are not independent. Where a share is 0% or 100%, they are "
        "exact intervals of lesions (Clopper-Pearson).",
        f"Split manifest SHA-256 {subject.split_sha256}.",
    ]
    if report.kind == "test":
        times = len(subject.test_accesses)
        whose = "evaluations of this bundle in this folder" if subject.is_bundle else "evaluations of this run"
        lines.append(
            f"{whose.capitalize()} accessed the test split {'once' if times == 1 else f'{times} times'}: "
            + ", ".join(line.split()[0] for line in subject.test_accesses)
            + "."
        )
    return lines
