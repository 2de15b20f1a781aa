"""What the recipe gives on every lesion outside test, each judged by a network that has not seen it."""

from typing import Any

from trainer.evaluation.recalibration import CROSS_FIT_CAVEAT
from trainer.report.document import Block, Paragraph, Section, Table, counted, interval, number, percent_interval


def summary(found: dict[str, Any]) -> str:
    """One sentence on the folds and their area under the ROC curve, for report and card.

    Args:
        found: as `trainer.crossfit.describe_crossfit` gives it.
    """
    areas = [fold["auroc"] for fold in found["folds"]]
    lesions = found["counts"]["lesions"]
    return (
        f"Trained anew {len(areas)} times, each time without one fold, the same recipe has on "
        f"{counted(lesions['melanoma'], 'melanoma lesion')} and {counted(lesions['nevus'], 'nevus lesion')} outside "
        f"test an AUROC of {interval(found['auroc'])}; the folds {number(min(areas))} to {number(max(areas))}, on "
        f"average {number(found['mean_auroc'])}."
    )


def rows(found: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Of each policy its name, sensitivity, specificity, and the melanoma images missed."""
    melanomas = found["counts"]["images"]["melanoma"]
    return [
        (
            name,
            percent_interval(policy["sensitivity"]),
            percent_interval(policy["specificity"]),
            f"{policy['missed']} of {melanomas:,}",
        )
        for name, policy in found["policies"].items()
    ]


def crossfit(report: dict[str, Any]) -> Section | None:
    """The section; None for a run that was not cross-fitted."""
    if not (found := report.get("crossfit")):
        return None
    blocks: list[Block] = [
        Paragraph(
            text=f"{summary(found)} Calibration and thresholds of each fold are those of the other folds. "
            f"{CROSS_FIT_CAVEAT}"
        ),
        Table(
            caption="Cross-fitted on the images outside test, by image, with 95% intervals",
            head=("Policy", "Sensitivity", "Specificity", "Melanoma images missed"),
            rows=rows(found),
        ),
        Table(
            caption="Each fold, predicted by the run that had left it out",
            head=("Fold", "Run", "Melanoma lesions / images", "Nevus lesions / images", "AUROC"),
            rows=[
                (
                    fold["fold"],
                    fold["run"],
                    *(
                        f"{fold['counts']['lesions'][name]:,} / {fold['counts']['images'][name]:,}"
                        for name in ("melanoma", "nevus")
                    ),
                    number(fold["auroc"]),
                )
                for fold in found["folds"]
            ],
        ),
    ]
    blocks += [
        Paragraph(text=f"{name} is not judged here, for want of lesions in the other folds. {why}")
        for name, why in found["refused"].items()
    ]
    return Section(name="cross-fitted", title="On the lesions outside test, cross-fitted", blocks=blocks)
