"""Robustness: how synthetic hair, rulers, ink, vignettes, blur and compression change the flags."""

from trainer.metrics.figures import Change
from trainer.report import plots
from trainer.report.document import (
    Block,
    Paragraph,
    Plot,
    Plots,
    Section,
    Table,
    interval,
    percent,
    percent_interval,
)
from trainer.report.schema import Report

#: Report and card name a fall of the sensitivity by at least this much.
_FALL = 0.05
#: Unless fewer images than this lose their flag, which may be chance.
_FEW = 3


def robustness(report: Report) -> Section:
    """Sensitivity, specificity and AUROC under each change, at the first policy."""
    found = report.robustness
    title = "Robustness"
    if found is None:
        return Section(
            name="robustness", title=title, blocks=(Paragraph(text="Not done: left out with --skip-robustness."),)
        )
    policy = report.first_policy
    origin = "" if report.kind == "external" else " of the test split"
    unchanged, images = found.policies[policy], found.images
    rows = [
        (
            "unchanged",
            percent_interval(unchanged.sensitivity),
            percent_interval(unchanged.specificity),
            interval(found.auroc),
            "",
        )
    ]
    for change in found.changes:
        at = change.policies[policy]
        rows.append(
            (
                name_of(change),
                percent_interval(at.sensitivity),
                percent_interval(at.specificity),
                interval(change.auroc),
                f"{at.melanomas_lost} / {at.melanomas_gained}",
            )
        )
    worst = min(found.changes, key=lambda change: change.policies[policy].sensitivity.or_nan)
    blocks: list[Block] = [
        Paragraph(
            text=f"A sample of {images.melanoma} melanoma and {images.nevus} nevus images{origin} was changed before "
            "preprocessing and scored again. The changes are synthetic: real hair and ink may do more or less. AUROC "
            "alone is not enough, since a change may keep the order of the images and move melanomas below the "
            f"threshold. At {policy}."
        ),
        Plots(
            plots=(
                Plot(
                    source=plots.robustness(found.changes, unchanged, policy),
                    alternative="Sensitivity and specificity under each change. The lowest sensitivity is "
                    f"{percent(worst.policies[policy].sensitivity.value)}, with {name_of(worst)}; unchanged "
                    f"it is {percent(unchanged.sensitivity.value)}.",
                    caption="Sensitivity (circles) and specificity (squares) with 95% intervals, from weak to strong "
                    "changes. The dotted lines are of the unchanged images.",
                ),
            )
        ),
        Table(
            caption=f"Flags at the threshold of {policy}, and AUROC",
            head=(
                "Change",
                "Sensitivity",
                "Specificity",
                "AUROC",
                "Melanomas lost / gained",
            ),
            rows=rows,
            note="Ruler: length of the long ticks as a share of the shorter side. Vignette: clear part of half the "
            "diagonal of the middle square, which is the part that the model gets. Blur: standard deviation in pixels "
            "of an image whose shorter side has 450.",
        ),
    ]
    if sentence := greatest_fall(report):
        blocks.insert(0, Paragraph(kind="warning", text=sentence))
    return Section(name="robustness", title=title, blocks=blocks)


def name_of(change: Change) -> str:
    """``hair, number: 15``."""
    return f"{change.name}, {change.unit}: {change.strength:g}"


def greatest_fall(report: Report) -> str:
    """One sentence on the changes that cost most sensitivity at the first policy. Empty if none costs much."""
    found = report.robustness
    if found is None:
        return ""
    policy = report.first_policy
    before = found.policies[policy].sensitivity.or_nan
    worst: dict[str, Change] = {}
    for change in found.changes:
        at = change.policies[policy]
        after, lost = at.sensitivity.or_nan, at.melanomas_lost - at.melanomas_gained
        if (
            before - after >= _FALL
            and lost >= _FEW
            and (change.name not in worst or after < worst[change.name].policies[policy].sensitivity.or_nan)
        ):
            worst[change.name] = change
    if not worst:
        return ""
    falls = sorted(worst.values(), key=lambda change: change.policies[policy].sensitivity.or_nan)
    named = "; ".join(
        f"{percent(change.policies[policy].sensitivity.value, 0)} ({name_of(change)})" for change in falls
    )
    return (
        "Synthetic changes make the model miss melanomas: sensitivity at "
        f"{policy} falls from {percent(before, 0)} to {named}."
    )
