"""The figures of a model card, one section for each subject. They name no image."""

from collections.abc import Sequence

from trainer.metrics.cross_fitting import CROSS_FIT_CAVEAT
from trainer.metrics.figures import GroupFigures
from trainer.report import crossfit
from trainer.report.document import NONE, interval, number, percent, percent_at_least, percent_interval, signed_interval
from trainer.report.robustness import name_of
from trainer.report.schema import Report
from trainer.thresholds.policies import BOUND_CAVEAT, OUT_OF_FOLD_CAVEAT
from worker.inference.bundle import LesionSensitivity, PrecisionCost
from worker.inference.metrics import BundleMetrics, FoldsCrossFit
from worker.terminal import shown_probability


def test_results(metrics: BundleMetrics, report: Report | None) -> str:
    """The main figures."""
    rows = [
        ("Area under the ROC curve", interval(metrics.auroc)),
        ("Area under the precision-recall curve", interval(metrics.auprc)),
        ("Brier score", interval(metrics.brier)),
    ]
    if report is not None:
        figures = report.assessment
        rows += [
            ("Area under the ROC curve, by lesion", interval(figures.lesions.auroc)),
            (
                "Specificity at 95% sensitivity, read off the curve",
                interval(figures.images.specificity_at_95_sensitivity),
            ),
        ]
    for name, policy in metrics.policies.items():
        rows += [
            (
                f"Sensitivity at `{name}` (probability {shown_probability(policy.threshold)})",
                interval(policy.sensitivity),
            ),
            (f"Specificity at `{name}`", interval(policy.specificity)),
            (
                f"Melanoma images missed at `{name}`",
                f"{policy.missed_melanoma_images} of {metrics.images.melanoma}",
            ),
        ]
        if report is not None and (by_lesion := report.assessment.lesions.policies.get(name)):
            flagged = interval(by_lesion.sensitivity_every_image)
            rows.append((f"Melanoma lesions with every image flagged at `{name}`", flagged))
    text = f"## Test results\n\n{metrics.split}; {metrics.intervals}.\n\n{table(('Figure', 'Value'), rows)}"
    if report is not None:
        seeds = report.seeds
        if len(seeds.runs) <= 1:
            text += "\n\nOne seed only."
        else:
            area = seeds.figures["auroc"]
            text += (
                f"\n\nOver {len(seeds.runs)} seeds the AUROC is {number(area.mean)} on average, from "
                f"{number(area.least)} to {number(area.greatest)}."
            )
    return text


def policies(report: Report) -> str:
    """The thresholds, and predictive values at 2% prevalence."""
    rows = []
    for name, policy in report.policies.items():
        at = {round(entry.prevalence, 2): entry for entry in report.assessment.prevalence[name]}
        rows.append(
            (
                f"`{name}`",
                shown_probability(policy.threshold),
                shown_probability(policy.borderline_threshold),
                caught(policy.by_lesion),
                percent_interval(at[0.02].ppv),
                percent_interval(at[0.02].referred),
            )
        )
    head = ("Policy", "High risk from", "Borderline from", "Lesions caught; bound", "PPV at 2%", "Flagged at 2%")
    shown = table(head, rows)
    refused = "".join(f"\n\nNot offered: `{name}`. {why}" for name, why in report.refused_policies.items())
    chosen_on, caveat = ("validation images", BOUND_CAVEAT)
    found = report.crossfit
    if found:
        chosen_on, caveat = ("out-of-fold predictions", OUT_OF_FOLD_CAVEAT)
    return (
        f"## Policies\n\n`youden`: greatest sensitivity + specificity on {chosen_on}. `sensitivity:X`: the "
        f"highest threshold whose one-sided 95% lower bound of sensitivity on these melanoma lesions is at least X. A "
        f"lesion is caught if all its images are flagged. {caveat}\n\n{shown}{refused}"
        + (f"\n\n{_crossfitted(found)}" if found else "")
    )


def _crossfitted(found: FoldsCrossFit) -> str:
    head = ("Policy, cross-fitted", *crossfit.HEAD)
    shown = table(head, [(f"`{name}`", *figures) for name, *figures in crossfit.rows(found)])
    return f"{crossfit.summary(found)} {crossfit.CAVEAT} {CROSS_FIT_CAVEAT}\n\n{shown}"


def caught(found: LesionSensitivity | None) -> str:
    """How many melanoma lesions a policy catches, and the sensitivity that this proves: ``88 of 92; 90.3%``."""
    return NONE if found is None else f"{found.caught} of {found.lesions}; {percent_at_least(found.lower_bound)}"


def calibration(report: Report) -> str:
    """Measures before and after."""
    measures = report.assessment.calibration
    names = (
        ("Brier score", "brier"),
        ("Expected calibration error", "ece"),
        ("Slope", "slope"),
        ("In the large", "intercept"),
    )
    rows = [
        (label, interval(getattr(measures.before, name)), interval(getattr(measures.after, name)))
        for label, name in names
    ]
    return f"## Calibration\n\n{table(('Measure', 'Raw output', 'After calibration'), rows)}"


def groups(report: Report) -> str:
    """AUROC and operating point by group."""
    policy = report.first_policy
    rows = [
        _group_row(f"{each.variable}: {group.group}", group, policy)
        for each in report.assessment.subgroups
        for group in each.groups
    ]
    if (proven := report.assessment.histology_only) is not None:
        rows.append(_group_row("Histology-proven melanoma and nevus only", proven, policy))
    head = ("Group", "Melanoma / nevus lesions", "AUROC", f"Sensitivity at `{policy}`", f"Specificity at `{policy}`")
    return (
        "## Groups\n\nNone of these comparisons was planned. † marks groups with fewer than five lesions of a class, "
        "whose figures are mostly chance. A lesion with images in two groups counts in both. Skin tone is "
        "exploratory.\n\n"
        f"{table(head, rows)}"
    )


def _group_row(name: str, group: GroupFigures, policy: str) -> tuple[str, ...]:
    lesions, figures = group.lesions, group.policies[policy]
    return (
        f"{name} †" if group.few else name,
        f"{lesions.melanoma} / {lesions.nevus}",
        interval(group.auroc),
        percent_interval(figures.sensitivity),
        percent_interval(figures.specificity),
    )


def others(report: Report) -> str:
    """How often the other diagnoses are flagged."""
    if not report.other_diagnoses:
        return ""
    names = list(report.policies)
    rows = [
        (
            f"`{entry.diagnosis}`",
            str(entry.images),
            *(percent(entry.policies[name] / entry.images, 0) for name in names),
        )
        for entry in report.other_diagnoses
    ]
    head = ("Diagnosis", "Images", *(f"Flagged at `{name}`" for name in names))
    return f"## Other diagnoses\n\nTest images that are neither melanoma nor nevus.\n\n{table(head, rows)}"


def classes(report: Report) -> str:
    """How well all diagnoses are told apart. Empty for a model of two classes."""
    found = report.seven_classes
    if not found:
        return ""
    rows = [
        (f"`{entry.diagnosis}`", str(entry.images), interval(entry.sensitivity), interval(entry.auroc))
        for entry in found.diagnoses
    ]
    head = ("Diagnosis", "Test images", "Sensitivity", "AUROC against all others")
    return (
        "## Seven diagnoses\n\nThe bundle gives the probability of each diagnosis beside that of melanoma against "
        "nevus, and the sum of the malignant ones (`akiec`, `bcc`, `mel`). These are the network's outputs: "
        "uncalibrated, "
        "and dependent on the class balance of the training. The balanced accuracy of the most probable diagnosis is "
        f"{interval(found.balanced_accuracy)}.\n\n{table(head, rows)}"
    )


def precision(name: str, cost: PrecisionCost) -> str:
    """What computing in fewer bits changes."""
    layers = f" {cost.layers} of its layers compute with 8-bit integers." if cost.layers else ""
    rows = [
        ("Area under the ROC curve", signed_interval(cost.auroc_difference)),
        *(
            (f"Sensitivity at the specificity of `{policy}`", signed_interval(difference))
            for policy, difference in cost.sensitivity_difference.items()
        ),
    ]
    return (
        f"## Precision\n\nThe OpenVINO model computes in {name}.{layers} Calibration, thresholds and figures are of "
        f"its outputs. The difference from 32-bit floats, on the {cost.images:,} images that the thresholds were "
        f"chosen on:\n\n{table(('Figure', 'Difference'), rows)}"
    )


def robustness(report: Report) -> str:
    """Sensitivity and specificity under each change, weak to strong."""
    found = report.robustness
    if found is None:
        return ""
    policy = report.first_policy
    unchanged = found.policies[policy]
    rows = [
        (
            "unchanged",
            percent_interval(unchanged.sensitivity),
            percent_interval(unchanged.specificity),
            interval(found.auroc),
        )
    ]
    rows += [
        (
            name_of(change),
            percent_interval(change.policies[policy].sensitivity),
            percent_interval(change.policies[policy].specificity),
            interval(change.auroc),
        )
        for change in found.changes
    ]
    head = ("Change", f"Sensitivity at `{policy}`", f"Specificity at `{policy}`", "AUROC")
    return (
        f"## Robustness\n\n{found.images.melanoma + found.images.nevus} test images under synthetic changes.\n\n"
        f"{table(head, rows)}"
    )


def parity(report: Report) -> str:
    """How far a worker's engine is from the Keras model."""
    found = report.engine_parity
    agree = min(policy.agreement for policy in found.policies.values())
    return (
        f"## Engine parity\n\nKeras against {found.engine} on {found.images:,} test images: probabilities differ "
        f"by at most {found.largest:.4f}, AUROC by {found.auroc_difference:+.4f}, and at least "
        f"{percent(agree, 2)} of flags agree at every policy."
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])
