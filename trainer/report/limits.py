"""Limits of the model: coverage, seeds, engines, and every missed melanoma."""

from trainer.metrics.figures import MissedMelanoma
from trainer.report import plots
from trainer.report.document import (
    Block,
    Case,
    Cases,
    Paragraph,
    Plot,
    Plots,
    Section,
    Table,
    counted,
    number,
    percent,
)
from trainer.report.schema import Report
from worker.terminal import shown_probability


def coverage(report: Report) -> Section:
    """What is gained if uncertain images go to a human without a flag."""
    policy, points = next(iter(report.assessment.coverage.items()))
    rows = [
        (
            percent(point.coverage, 0),
            f"{point.images:,}",
            percent(point.risk),
            percent(point.sensitivity),
            percent(point.specificity),
            str(point.missed),
        )
        for point in points
    ]
    return Section(
        name="coverage",
        title="Coverage and risk",
        blocks=(
            Paragraph(
                text="Figures of the remaining images if those nearest to the threshold (in log-odds) go to a human "
                f"without a flag. At {policy}."
            ),
            Plots(
                plots=(
                    Plot(
                        source=plots.coverage(points),
                        alternative="Coverage from 100% to 50%: share flagged wrongly from "
                        f"{percent(points[0].risk)} to {percent(points[-1].risk)}.",
                        caption="The most certain images keep their flag.",
                    ),
                )
            ),
            Table(
                caption="Among the images that keep their flag",
                head=(
                    "Coverage",
                    "Images",
                    "Flagged wrongly",
                    "Sensitivity",
                    "Specificity",
                    "Melanomas missed",
                ),
                rows=rows,
            ),
        ),
    )


def seeds(report: Report) -> Section:
    """The range over runs that differ in their seed only."""
    found = report.seeds
    count = len(found.runs)
    title = "Other seeds"
    if count <= 1:
        text = (
            "One seed only, so that the effect of chance in one training is not known. Evaluate two or more runs with "
            "the same settings and other seeds, and pass them with --seed-run RUN."
        )
        return Section(name="seeds", title=title, blocks=(Paragraph(kind="warning", text=text),))
    names = list(found.figures)
    blocks: list[Block] = [
        Table(
            caption=f"{count} runs of the same split",
            head=(
                "Figure",
                "Mean",
                "Range",
                *(f"{run.run} (seed {run.seed})" for run in found.runs),
            ),
            rows=[
                (
                    name if " " in name else name.upper() if name != "brier" else "Brier score",
                    number(found.figures[name].mean),
                    f"{number(found.figures[name].least)} to {number(found.figures[name].greatest)}",
                    *(number(run.figures[name]) for run in found.runs),
                )
                for name in names
            ],
        )
    ]
    if report.subject.origin and report.subject.origin.continues_from and found.same_start:
        blocks.append(Paragraph(text="All of them continue from the same run: the range is of the last step alone."))
    if count < 3:
        blocks.append(Paragraph(text="Two runs give a hint. A range needs at least three."))
    return Section(name="seeds", title=title, blocks=blocks)


def parity(report: Report) -> Section:
    """The worker's engine against the Keras model."""
    found = report.engine_parity
    source = (
        "The figures of this report are of the bundle as workers run it. These are the differences from its Keras "
        "model on the same images."
        if report.subject.is_bundle
        else "The figures of this report are of the Keras model. Workers run a converted model. These are the "
        "differences between both on the same images."
    )
    rows = [
        ("Largest difference of a calibrated probability", f"{found.largest:.5f}"),
        ("Mean difference", f"{found.mean:.6f}"),
        ("AUROC, difference from the Keras model", f"{found.auroc_difference:+.5f}"),
    ]
    for name, policy in found.policies.items():
        agree = f"{policy.differ} of {found.images:,} ({percent(policy.agreement, 2)} agree)"
        rows.append((f"Flags that differ at {name}", agree))
    return Section(
        name="engine-parity",
        title="Engine parity",
        blocks=(
            Paragraph(text=source),
            Table(caption=f"Keras against {found.engine}", head=("Measure", "Value"), rows=rows),
        ),
    )


def missed(report: Report, pictures: dict[str, str]) -> Section:
    """Every melanoma image that a policy misses, with its picture unless pictures are left out."""
    entries = report.missed
    policies = list(report.policies)
    blocks: list[Block] = []
    first = policies[0]
    for policy in policies:
        of_policy = [entry for entry in entries if policy in entry.missed_by]
        if policy != first:
            names = ", ".join(entry.image_id for entry in of_policy)
            blocks.append(
                Paragraph(
                    text=f"Missed at {policy}: {counted(len(of_policy), 'image')}{': ' + names if names else ''}."
                )
            )
            continue
        blocks.append(
            Paragraph(
                text=f"At {policy}, {counted(len(of_policy), 'melanoma image')} below the threshold of "
                f"{shown_probability(report.policies[policy].threshold)}, the lowest probability first. Look for what "
                "they have in common: that is a weakness of the model."
            )
        )
        if not pictures and of_policy:
            blocks.append(Paragraph(text="Pictures were left out (--without-pictures)."))
        blocks.append(Cases(cases=[_case(entry, policy, pictures) for entry in of_policy]))
    return Section(name="missed", title="Every missed melanoma", blocks=blocks)


def _case(entry: MissedMelanoma, policy: str, pictures: dict[str, str]) -> Case:
    known = entry.known
    siblings = entry.siblings
    age = known.get("age", "").removesuffix(".0")
    person = ", ".join(part for part in (f"age {age}" if age else "", known.get("sex", "")) if part)
    origin = ", ".join(part for part in (known.get("localization", ""), known.get("dataset", "")) if part)
    others = (
        f"{siblings.flagged[policy]} of {counted(siblings.images, 'other image')} of this lesion flagged"
        if siblings.images
        else "the only image of this lesion"
    )
    lines = [f"probability {entry.probability:.3f}", person, origin, others]
    return Case(
        picture=pictures.get(entry.image_id, ""),
        alternative=f"Melanoma {entry.image_id}, probability {entry.probability:.3f}",
        title=entry.image_id,
        lines=[line for line in lines if line],
    )
