"""What the commands of the trainer print of a model's figures.

What computes figures is imported where it is needed: it loads TensorFlow, and ``--help`` should not wait for that.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from trainer.config import RunConfig
    from worker.inference.bundle import BundleManifest

#: Said of a fold, whose test side is not to be opened.
AFTER_FOLDS = "When every fold is done, and a run with --fold all: dermq-train crossfit RUN FOLD..."

#: Why an area has no interval: by whether it is 1.
_WITHOUT_INTERVAL = {True: "no interval: perfectly separated", False: "no interval: too few lesions"}


def print_trained(run: Path, config: "RunConfig", auc: float) -> None:
    """Print what a training came to, and what to do next.

    Args:
        run: the run folder.
        config: its settings.
        auc: area under the ROC curve on validation; not a number without that side.
    """
    from trainer.metrics.discrimination import CHANCE

    if math.isnan(auc):
        click.echo(f"Trained without a validation side. Next: dermq-train crossfit {run} FOLD...")
    elif config.fold:
        click.echo(f"AUC {auc:.4f} on fold {config.fold}, held out. {AFTER_FOLDS}")
    elif auc <= CHANCE:
        click.echo(f"Validation AUC {auc:.4f}, no better than chance: train anew, longer or on more lesions.")
    else:
        click.echo(f"Validation AUC {auc:.4f}, of the {config.checkpoint} epoch. Next: dermq-train evaluate {run}")


def print_figures(auroc: dict[str, Any], policies: dict[str, Any], name: str) -> None:
    """Print an area under the curve and what each policy gives.

    Args:
        auroc: ``value``, ``low`` and ``high``, as in ``metrics.json``.
        policies: by name, as in ``metrics.json`` or in the assessment of a report.
        name: what the area is called.
    """
    from trainer.report.document import counted

    known = auroc["low"] is not None
    spread = (
        f"95% interval {auroc['low']:.4f} to {auroc['high']:.4f}" if known else _WITHOUT_INTERVAL[auroc["value"] == 1]
    )
    click.echo(f"{name} {auroc['value']:.4f} ({spread})")
    for policy, figures in policies.items():
        missed = figures.get("missed_melanoma_images", figures.get("missed"))
        click.echo(
            f"{policy}: threshold {figures['threshold']:.4f}, sensitivity {_with_interval(figures['sensitivity'])}, "
            f"specificity {_with_interval(figures['specificity'])}, {counted(missed, 'melanoma image')} missed"
        )


def print_beside_card(found: dict[str, Any], stated: dict[str, Any]) -> None:
    """Print how far the figures of a bundle are from those that it carries, which its Keras model gave.

    Args:
        found: as in ``metrics.json``.
        stated: ``metrics`` of the bundle's manifest.
    """
    card = stated["auroc"]["value"]
    apart = max(
        abs(found["policies"][policy][name]["value"] - figures[name]["value"])
        for policy, figures in stated["policies"].items()
        for name in ("sensitivity", "specificity")
    )
    click.echo(
        f"Its card, by its Keras model, has the AUC {card:.4f} ({found['auroc']['value'] - card:+.4f} here); no "
        f"sensitivity or specificity is more than {apart:.4f} off"
    )


def print_external(report: dict[str, Any]) -> None:
    """Print what was judged and what came of it, of images from elsewhere.

    Args:
        report: as `trainer.evaluation.of_external` gives it.
    """
    from trainer.report.document import counted
    from trainer.report.participants import few_lesions, swapped_labels
    from trainer.report.robustness import greatest_fall

    given, judged = report["external"], report["assessment"]["images"]
    classes = " and ".join(
        f"{counted(given['images'][name], f'{name} image')} of {counted(given['lesions'][name], 'lesion')}"
        for name in ("melanoma", "nevus")
    )
    others = counted(given["other_diagnoses"], "image") if given["other_diagnoses"] else ""
    left_out = counted(given["without_label"], "image") if given["without_label"] else ""
    unnamed = counted(given["lesion_ids_missing"], "image") if given["lesion_ids_missing"] else ""
    ages = counted(len(given["ages_set_aside"]), "age") if given["ages_set_aside"] else ""
    click.echo(
        classes
        + (f"; apart from them {others} of other diagnoses" if others else "")
        + (f"; left out without a label: {left_out}" if left_out else "")
        + (f"; without a lesion_id, so that each counts as a lesion: {unnamed}" if unnamed else "")
        + (f"; taken as unknown, for no person has them: {ages}" if ages else "")
    )
    print_figures(judged["auroc"], judged["policies"], "AUC on these images")
    for entry in report["other_diagnoses"] or ():
        flagged = ", ".join(f"{count} at {policy}" for policy, count in entry["policies"].items())
        click.echo(f"{entry['diagnosis']}: of {counted(entry['images'], 'image')} flagged {flagged}")
    for warning in (swapped_labels(judged["auroc"]), few_lesions(given), greatest_fall(report)):
        if warning:
            click.echo(f"WARNING: {warning}", err=True)


def print_crossfitted(found: dict[str, Any]) -> None:
    """Print what each fold gives, and all of them together.

    Args:
        found: as `trainer.evaluation.crossfit.describe_crossfit` gives it.
    """
    from trainer.report.crossfit import not_scored, summary

    for fold in found["folds"]:
        scale = fold["calibration"]
        click.echo(
            f"fold {fold['fold']} ({fold['run']}): AUC {fold['auroc']:.4f}, calibration slope {scale['slope']:.3f} and "
            f"intercept {scale['intercept']:.3f}"
        )
    click.echo(summary(found))
    for policy, figures in found["policies"].items():
        click.echo(
            f"{policy}, cross-fitted: sensitivity {_with_interval(figures['sensitivity'])}, specificity "
            f"{_with_interval(figures['specificity'])}"
        )
    for line in not_scored(found):
        click.echo(line)


def print_recalibrated(made: "BundleManifest", refused: dict[str, str]) -> None:
    """Print what a recalibrated bundle offers, and what whoever takes its policies must know.

    Args:
        made: of the new bundle.
        refused: why a policy is not offered, by its name.
    """
    from trainer.card.recalibrated import youden_warning
    from trainer.thresholds.policies import YOUDEN
    from worker.terminal import shown_probability

    figures, thresholds = made.metrics["policies"], made.thresholds
    click.echo(
        "Thresholds: the bundle's, of all lesions. Sensitivity and specificity: cross-fitted, each fifth of the "
        "lesions judged by calibration and thresholds of the other four."
    )
    print_figures(made.metrics["auroc"], figures, "AUC on these images")
    for policy in thresholds:
        if policy not in figures:
            click.echo(f"{policy}: offered, with too few lesions to say what it gives on others")
    for policy, why in refused.items():
        click.echo(f"{policy}: not offered. {why}")
    youden = thresholds[YOUDEN].threshold
    for policy, numbers in thresholds.items():
        if numbers.threshold > youden:
            click.echo(
                f"WARNING: here {policy} begins above {YOUDEN}, at {shown_probability(numbers.threshold)} and not at "
                f"{shown_probability(youden)}: under this bundle {YOUDEN} flags more, whatever the cross-fitted "
                "figures say, which are of other thresholds.",
                err=True,
            )
    if warning := youden_warning(made):
        click.echo(f"WARNING: {warning}", err=True)


def _with_interval(share: dict[str, Any]) -> str:
    known = share["low"] is not None
    return f"{share['value']:.4f}" + (f" ({share['low']:.4f} to {share['high']:.4f})" if known else "")
