"""The cross-fitted figures of a recipe: every lesion outside test, each scored by a network that has not seen it."""

from trainer.config import SOURCE_FOLD
from trainer.metrics.cross_fitting import CROSS_FIT_CAVEAT
from trainer.report.clinics import fold_rows
from trainer.report.document import Block, Paragraph, Section, Table, counted, interval, number, percent_interval
from trainer.report.schema import Report
from worker.inference.metrics import FoldsCrossFit

#: Limitation of these figures, for report and card.
CAVEAT = (
    "Calibration and thresholds for a fold come from the other folds. This is not nested cross-validation: the "
    "networks behind these thresholds were trained on the fold, which makes its figures a little too good."
)


def summary(found: FoldsCrossFit) -> str:
    """One sentence on the folds and their area under the ROC curve, for report and card."""
    areas = [fold.auroc for fold in found.folds]
    lesions = found.counts.lesions
    return (
        f"In {len(areas)} runs that each held a fold out, the recipe has on "
        f"{counted(lesions.melanoma, 'melanoma lesion')} and {counted(lesions.nevus, 'nevus lesion')} outside "
        f"test an AUROC of {interval(found.auroc)}. Single folds have {number(min(areas))} to {number(max(areas))}, on "
        f"average {number(found.mean_auroc)}."
    )


#: Heads of the columns of `rows` after the policy.
HEAD = ("Sensitivity", "Specificity", "Melanoma images missed", "Melanoma lesions caught, every image")


def rows(found: FoldsCrossFit) -> list[tuple[str, ...]]:
    """For each policy its name, and its figures in the order of `HEAD`."""
    melanomas = found.counts.images.melanoma
    return [
        (
            name,
            percent_interval(policy.sensitivity),
            percent_interval(policy.specificity),
            f"{policy.missed} of {melanomas:,}",
            f"{policy.by_lesion.caught} of {policy.by_lesion.lesions:,}",
        )
        for name, policy in found.policies.items()
    ]


def without_figures(found: FoldsCrossFit) -> list[str]:
    """A sentence on each policy without cross-fitted figures, which may be offered all the same."""
    return [
        f"{name} has no cross-fitted figures: without one fold there are too few melanoma lesions for it. All folds "
        "together may be enough."
        for name in found.refused
    ]


def crossfit(report: Report) -> Section | None:
    """The section; None for a run that was not cross-fitted."""
    if not (found := report.crossfit):
        return None
    blocks: list[Block] = [
        Paragraph(text=f"{summary(found)} {CAVEAT} {CROSS_FIT_CAVEAT}"),
        Table(
            caption="Cross-fitted on the images outside test, by image, with 95% intervals",
            head=("Policy", *HEAD),
            rows=rows(found),
        ),
        Table(
            caption="Each fold, scored by the run that held it out",
            head=("Fold", "Run", "Melanoma lesions / images", "Nevus lesions / images", "AUROC", "Slope; intercept"),
            note="Slope and intercept are of a calibration fitted on the fold alone. If they lie far apart, the "
            "outputs of the networks differ in scale, and the thresholds of one do not fit another.",
            rows=[
                (
                    fold.fold,
                    fold.run,
                    *(
                        f"{getattr(fold.counts.lesions, name):,} / {getattr(fold.counts.images, name):,}"
                        for name in ("melanoma", "nevus")
                    ),
                    number(fold.auroc),
                    f"{fold.calibration.slope:.2f}; {fold.calibration.intercept:.2f}",
                )
                for fold in found.folds
            ],
        ),
    ]
    if all(fold.fold.startswith(SOURCE_FOLD) for fold in found.folds):
        policy = report.first_policy
        blocks.append(
            Table(
                caption="Clinics that the network and the thresholds had not seen",
                head=(
                    "Left out",
                    "Melanoma / nevus images",
                    "AUROC",
                    f"Sensitivity at {policy}",
                    f"Specificity at {policy}",
                ),
                note="Each clinic was predicted by a network that was trained without it, and flagged by thresholds "
                "that were chosen on the other clinics. The shares above weigh the clinics equally.",
                rows=fold_rows(found, policy),
            )
        )
    blocks += [Paragraph(text=line) for line in without_figures(found)]
    return Section(name="cross-fitted", title="On the lesions outside test, cross-fitted", blocks=blocks)
