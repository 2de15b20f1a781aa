"""What the commands of ``dermq-train`` print.

Modules that load TensorFlow are imported where they are needed, so that ``--help`` does not wait for it.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainer.config import RunConfig
    from trainer.metrics.figures import OperatingFigures, Robustness, UnchangedFlags
    from trainer.report.schema import Report
    from worker.inference.bundle import BundleManifest, PrecisionCost
    from worker.inference.metrics import BundleMetrics, Estimate, FoldsCrossFit, PolicyMetrics

_AFTER_FOLDS = "When every fold and a run with --fold all are trained: dermq-train crossfit RUN FOLD..."


def print_trained(run: Path, config: "RunConfig", auc: float) -> None:
    """Print the result of a training and the next step.

    Args:
        run: the run folder.
        config: its settings.
        auc: area under the ROC curve on validation. Not a number without validation images.
    """
    from trainer.metrics.discrimination import CHANCE

    if math.isnan(auc):
        click.echo(f"Trained without validation images. Next: dermq-train crossfit {run} FOLD...")
    elif config.fold:
        click.echo(f"AUROC {auc:.4f} on the held-out fold {config.fold}. {_AFTER_FOLDS}")
    elif auc <= CHANCE:
        click.echo(f"Validation AUROC {auc:.4f}, no better than chance. Train longer, or on more lesions.")
    else:
        click.echo(f"Validation AUROC {auc:.4f} of the {config.checkpoint} epoch. Next: dermq-train evaluate {run}")


def print_figures(
    auroc: "Estimate", policies: "Mapping[str, PolicyMetrics] | Mapping[str, OperatingFigures]", name: str
) -> None:
    """Print an area under the curve and the figures of each policy.

    Args:
        auroc: area under the ROC curve.
        policies: by name.
        name: of the area.
    """
    from trainer.report.document import counted
    from worker.inference.metrics import PolicyMetrics

    if auroc.low is not None and auroc.high is not None:
        spread = f"95% interval {auroc.low:.4f} to {auroc.high:.4f}"
    else:
        spread = f"no interval: {'perfectly separated' if auroc.value == 1 else 'too few lesions'}"
    click.echo(f"{name} {auroc.or_nan:.4f} ({spread})")
    for policy, figures in policies.items():
        missed = figures.missed_melanoma_images if isinstance(figures, PolicyMetrics) else figures.missed
        click.echo(
            f"{policy}: threshold {figures.threshold:.4f}, sensitivity {_with_interval(figures.sensitivity)}, "
            f"specificity {_with_interval(figures.specificity)}, {counted(missed, 'melanoma image')} missed"
        )


def print_beside_card(found: "BundleMetrics", stated: "BundleMetrics") -> None:
    """Print how far the figures of a bundle are from those of its model card, which are of the Keras model.

    Args:
        found: figures of the evaluation.
        stated: figures that the bundle carries.
    """
    card = stated.auroc.or_nan
    apart = max(
        abs(measured.or_nan - expected.or_nan)
        for policy, figures in stated.policies.items()
        for measured, expected in (
            (found.policies[policy].sensitivity, figures.sensitivity),
            (found.policies[policy].specificity, figures.specificity),
        )
    )
    click.echo(
        f"The model card, with figures of the Keras model, has AUROC {card:.4f} ({found.auroc.or_nan - card:+.4f} "
        f"here). Sensitivities and specificities differ by at most {apart:.4f}"
    )


def print_external(report: "Report") -> None:
    """Print the images and figures of an evaluation on images of another clinic."""
    from trainer.report.document import counted
    from trainer.report.participants import few_lesions, swapped_labels
    from trainer.report.robustness import greatest_fall

    if (given := report.external) is None:
        return
    images, lesions, figures = given.images, given.lesions, report.assessment.images
    line = (
        f"{counted(images.melanoma, 'melanoma image')} of {counted(lesions.melanoma, 'lesion')} and "
        f"{counted(images.nevus, 'nevus image')} of {counted(lesions.nevus, 'lesion')}"
    )
    for count, what in (
        (given.other_diagnoses, "of other diagnoses, in a table of their own"),
        (given.without_label, "left out, without a label"),
        (given.lesion_ids_missing, "without a lesion_id, each counted as a lesion"),
    ):
        if count:
            line += f"; {counted(count, 'image')} {what}"
    if given.ages_set_aside:
        line += f"; {counted(len(given.ages_set_aside), 'impossible age')} counted as unknown"
    click.echo(line)
    print_figures(figures.auroc, figures.policies, "AUROC on these images")
    for entry in report.other_diagnoses or ():
        flagged = ", ".join(f"{count} at {policy}" for policy, count in entry.policies.items())
        click.echo(f"{entry.diagnosis}: of {counted(entry.images, 'image')} flagged {flagged}")
    for warning in (swapped_labels(figures.auroc), few_lesions(given), greatest_fall(report)):
        if warning:
            click.echo(f"WARNING: {warning}", err=True)


def print_crossfitted(found: "FoldsCrossFit") -> None:
    """Print the figures of each fold, and of all together."""
    from trainer.report.crossfit import summary, without_figures

    for fold in found.folds:
        line = fold.calibration
        click.echo(
            f"fold {fold.fold} ({fold.run}): AUROC {fold.auroc:.4f}, calibration slope {line.slope:.3f} and intercept "
            f"{line.intercept:.3f}"
        )
    click.echo(summary(found))
    for policy, figures in found.policies.items():
        click.echo(
            f"{policy}, cross-fitted: sensitivity {_with_interval(figures.sensitivity)}, specificity "
            f"{_with_interval(figures.specificity)}"
        )
    for sentence in without_figures(found):
        click.echo(sentence)


def print_robustness(found: "Robustness") -> None:
    """Print sensitivity, specificity and AUROC under each change, and the AUROC of each subgroup."""
    policy = next(iter(found.policies))
    images = found.images
    click.echo(f"At {policy}, {images.melanoma} melanoma and {images.nevus} nevus images:")
    click.echo(f"{'':24}  sensitivity  specificity  AUROC")

    def row(name: str, at: "UnchangedFlags", auroc: "Estimate") -> None:
        click.echo(f"{name:24}  {at.sensitivity.or_nan:11.3f}  {at.specificity.or_nan:11.3f}  {auroc.or_nan:.3f}")

    row("unchanged", found.policies[policy], found.auroc)
    for change in found.changes:
        row(f"{change.name}, {change.unit}: {change.strength:g}", change.policies[policy], change.auroc)
    for variable in found.subgroups:
        click.echo(f"{variable.variable}, all validation images:")
        for group in variable.groups:
            area = f"AUROC {group.auroc.or_nan:.3f}" if group.auroc else "no AUROC"
            click.echo(
                f"{group.group:24}  {area}, {group.images.melanoma} melanoma and {group.images.nevus} nevus images"
            )


def print_recalibrated(made: "BundleManifest", refused: dict[str, str]) -> None:
    """Print the policies of a recalibrated bundle, with warnings.

    Args:
        made: the new bundle.
        refused: by policy, why it is not offered.
    """
    from trainer.card.recalibrated import youden_warning
    from trainer.thresholds.policies import YOUDEN
    from worker.terminal import shown_probability

    figures, thresholds = made.metrics.policies, made.thresholds
    click.echo(
        "The thresholds are chosen on all lesions. Sensitivity and specificity are cross-fitted: each part of the "
        "lesions is flagged with calibration and thresholds of the others."
    )
    print_figures(made.metrics.auroc, figures, "AUROC on these images")
    for policy in thresholds:
        if policy not in figures:
            click.echo(f"{policy}: offered, but without cross-fitted figures, because there are too few lesions")
    for policy, why in refused.items():
        click.echo(f"{policy}: not offered. {why}")
    youden = thresholds[YOUDEN].threshold
    for policy, numbers in thresholds.items():
        if numbers.threshold > youden:
            click.echo(
                f"WARNING: in this bundle the threshold of {policy} is {shown_probability(numbers.threshold)}, above "
                f"that of {YOUDEN}, {shown_probability(youden)}. {YOUDEN} flags more images, whatever the "
                "cross-fitted figures of other thresholds suggest.",
                err=True,
            )
    if warning := youden_warning(made):
        click.echo(f"WARNING: {warning}", err=True)


def _with_interval(share: "Estimate") -> str:
    if share.low is None or share.high is None:
        return f"{share.or_nan:.4f}"
    return f"{share.or_nan:.4f} ({share.low:.4f} to {share.high:.4f})"


def print_precision_cost(cost: "PrecisionCost") -> None:
    """Print what a precision changes against 32-bit floats."""
    from trainer.report.document import signed_interval

    shown = {"area under the ROC curve": cost.auroc_difference} | {
        f"sensitivity at the specificity of {policy}": found for policy, found in cost.sensitivity_difference.items()
    }
    click.echo(f"Against 32-bit floats, on {cost.images:,} images:")
    for name, found in shown.items():
        click.echo(f"  {name}: {signed_interval(found)}")
