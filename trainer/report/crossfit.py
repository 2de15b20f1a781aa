"""What the recipe gives on every lesion outside test, each judged by a network that has not seen it."""

from typing import Any

from trainer.metrics.cross_fitting import CROSS_FIT_CAVEAT
from trainer.report.document import Block, Paragraph, Section, Table, counted, interval, number, percent_interval

#: What these figures are not, for report and card.
CAVEAT = (
    "Each fold is judged by calibration and thresholds of the others. That is no nested cross-validation: the networks "
    "behind these thresholds were trained on the fold, by which its figures owe a little to it."
)


def summary(found: dict[str, Any]) -> str:
    """One sentence on the folds and their area under the ROC curve, for report and card.

    Args:
        found: as `trainer.evaluation.crossfit.describe_crossfit` gives it.
    """
    areas = [fold["auroc"] for fold in found["folds"]]
    lesions = found["counts"]["lesions"]
    return (
        f"The recipe, in {len(areas)} runs that each left a fold out, has on "
        f"{counted(lesions['melanoma'], 'melanoma lesion')} and {counted(lesions['nevus'], 'nevus lesion')} outside "
        f"test an AUROC of {interval(found['auroc'])}; the folds {number(min(areas))} to {number(max(areas))}, on "
        f"average {number(found['mean_auroc'])}."
    )


#: Names of what `rows` has beside the policy.
HEAD = ("Sensitivity", "Specificity", "Melanoma images missed", "Melanoma lesions caught, every image")


def rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """Of each policy its name, and figures in the order of `HEAD`."""
    melanomas = found["counts"]["images"]["melanoma"]
    return [
        (
            name,
            percent_interval(policy["sensitivity"]),
            percent_interval(policy["specificity"]),
            f"{policy['missed']} of {melanomas:,}",
            f"{policy['by_lesion']['caught']} of {policy['by_lesion']['lesions']:,}",
        )
        for name, policy in found["policies"].items()
    ]


def not_scored(found: dict[str, Any]) -> list[str]:
    """A sentence on each policy that the folds cannot judge, which all of them together may offer all the same."""
    return [
        f"What {name} gives is not told by folds: the others hold too few melanoma lesions for it. All together may do."
        for name in found["refused"]
    ]


def crossfit(report: dict[str, Any]) -> Section | None:
    """The section; None for a run that was not cross-fitted."""
    if not (found := report.get("crossfit")):
        return None
    blocks: list[Block] = [
        Paragraph(text=f"{summary(found)} {CAVEAT} {CROSS_FIT_CAVEAT}"),
        Table(
            caption="Cross-fitted on the images outside test, by image, with 95% intervals",
            head=("Policy", *HEAD),
            rows=rows(found),
        ),
        Table(
            caption="Each fold, predicted by the run that had left it out",
            head=("Fold", "Run", "Melanoma lesions / images", "Nevus lesions / images", "AUROC", "Slope; intercept"),
            note="Slope and intercept of a calibration fitted on the fold alone: where they lie far apart, the "
            "networks differ in scale, and thresholds of some do not fit the others.",
            rows=[
                (
                    fold["fold"],
                    fold["run"],
                    *(
                        f"{fold['counts']['lesions'][name]:,} / {fold['counts']['images'][name]:,}"
                        for name in ("melanoma", "nevus")
                    ),
                    number(fold["auroc"]),
                    f"{fold['calibration']['slope']:.2f}; {fold['calibration']['intercept']:.2f}",
                )
                for fold in found["folds"]
            ],
        ),
    ]
    blocks += [Paragraph(text=line) for line in not_scored(found)]
    return Section(name="cross-fitted", title="On the lesions outside test, cross-fitted", blocks=blocks)
