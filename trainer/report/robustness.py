"""What made-up hair, rulers, ink, rims, blur and compression do to the flags."""

from typing import Any

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

#: A fall of sensitivity from this on is a limit of the model that report and card name.
_FALL = 0.05
#: Unless it is of fewer images than this, where chance rules.
_FEW = 3


def robustness(report: dict[str, Any]) -> Section:
    """Sensitivity, specificity and AUROC under each change, at the first policy's frozen threshold."""
    found = report["robustness"]
    title = "Robustness"
    if found is None:
        return Section(name="robustness", title=title, blocks=(Paragraph(text="Not done: left out by --quick."),))
    policy = next(iter(report["policies"]))
    origin = "" if report["kind"] == "external" else " of the test split"
    unchanged, images = found["policies"][policy], found["images"]
    rows = [
        (
            "unchanged",
            percent_interval(unchanged["sensitivity"]),
            percent_interval(unchanged["specificity"]),
            interval(found["auroc"]),
            "",
        )
    ]
    for change in found["changes"]:
        at = change["policies"][policy]
        rows.append(
            (
                name_of(change),
                percent_interval(at["sensitivity"]),
                percent_interval(at["specificity"]),
                interval(change["auroc"]),
                f"{at['melanomas_lost']} / {at['melanomas_gained']}",
            )
        )
    worst = min(found["changes"], key=lambda change: change["policies"][policy]["sensitivity"]["value"])
    blocks: list[Block] = [
        Paragraph(
            text=f"{images['melanoma']} melanoma and {images['nevus']} nevus images{origin}, drawn once, "
            "were changed before preprocessing and scored again. The changes are drawn by a program and show a "
            "direction; real hair and ink may do more or less. AUROC alone would hide what matters: a change may "
            f"leave the order of the images as it is and push the melanomas below the threshold. At {policy}."
        ),
        Plots(
            plots=(
                Plot(
                    source=plots.robustness(found["changes"], unchanged, policy),
                    alternative="Sensitivity and specificity under each change. The lowest sensitivity is "
                    f"{percent(worst['policies'][policy]['sensitivity']['value'])}, with {name_of(worst)}; unchanged "
                    f"it is {percent(unchanged['sensitivity']['value'])}.",
                    caption="Sensitivity (circles) and specificity (squares) with 95% intervals, from the weak to the "
                    "strong form of each change; the dotted lines are without any.",
                ),
            )
        ),
        Table(
            caption=f"Flags at the frozen threshold of {policy}, and AUROC",
            head=(
                "Change",
                "Sensitivity",
                "Specificity",
                "AUROC",
                "Melanomas lost / gained",
            ),
            rows=rows,
            note="Ruler: length of the long ticks as a share of the shorter side. Vignette: clear part of half the "
            "diagonal of the middle square, which is what the model sees. Blur: standard deviation in pixels, where "
            "the shorter side has 450.",
        ),
    ]
    if sentence := greatest_fall(report):
        blocks.insert(0, Paragraph(kind="warning", text=sentence))
    return Section(name="robustness", title=title, blocks=blocks)


def name_of(change: dict[str, Any]) -> str:
    """``hair, number: 15``."""
    return f"{change['name']}, {change['unit']}: {change['strength']:g}"


def greatest_fall(report: dict[str, Any]) -> str:
    """One sentence on the changes that cost most sensitivity at the first policy; empty where none costs much.

    Args:
        report: as in ``report.json``.
    """
    found = report["robustness"]
    if found is None:
        return ""
    policy = next(iter(report["policies"]))
    before = found["policies"][policy]["sensitivity"]["value"]
    worst: dict[str, dict[str, Any]] = {}
    for change in found["changes"]:
        at = change["policies"][policy]
        after, lost = at["sensitivity"]["value"], at["melanomas_lost"] - at["melanomas_gained"]
        if (
            before - after >= _FALL
            and lost >= _FEW
            and (
                change["name"] not in worst or after < worst[change["name"]]["policies"][policy]["sensitivity"]["value"]
            )
        ):
            worst[change["name"]] = change
    if not worst:
        return ""
    falls = sorted(worst.values(), key=lambda change: float(change["policies"][policy]["sensitivity"]["value"]))
    named = "; ".join(
        f"{percent(change['policies'][policy]['sensitivity']['value'], 0)} ({name_of(change)})" for change in falls
    )
    return (
        f"Melanomas are missed under drawn changes: sensitivity at {policy} falls from {percent(before, 0)} to {named}."
    )
