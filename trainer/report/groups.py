"""Subgroups, sources and other diagnoses."""

from collections.abc import Iterator, Sequence

from trainer.data.diagnoses import DIAGNOSES
from trainer.metrics.figures import Assessment, Subgroup
from trainer.report import plots
from trainer.report.document import (
    NONE,
    Block,
    Paragraph,
    Plot,
    Plots,
    Section,
    Table,
    counted,
    interval,
    number,
    percent,
    percent_interval,
)
from trainer.report.schema import Report
from worker.inference.metrics import Estimate

_DIAGNOSES = {
    "akiec": "actinic keratosis, Bowen's disease",
    "bcc": "basal cell carcinoma",
    "bkl": "benign keratosis-like lesion",
    "df": "dermatofibroma",
    "vasc": "vascular lesion",
}


def subgroups(report: Report) -> Section:
    """Figures by age, sex, site, source, proof of diagnosis and skin tone."""
    assessment = report.assessment
    policy = report.first_policy
    blocks: list[Block] = [
        Paragraph(
            text=f"Sensitivity and specificity are at {policy}. Many groups are small: † marks a figure of fewer than "
            "five lesions of a class, which is mostly chance. Groups differ in more than their name, and none of these "
            "comparisons was planned."
        )
    ]
    if weak := weakest_groups(report):
        blocks.insert(0, Paragraph(kind="warning", text=weak))
    if lines := list(_forest_lines(assessment)):
        blocks.append(
            Plots(
                plots=(
                    Plot(
                        source=plots.forest(lines, assessment.images.auroc.or_nan, "AUROC with 95% interval"),
                        alternative="AUROC by group with 95% intervals. The tables below have the numbers.",
                        caption="AUROC by group. The dotted line is the AUROC of all images. Groups with fewer than "
                        "five lesions of a class are not drawn.",
                    ),
                )
            )
        )
    blocks += [_table(each.variable, each.groups, policy) for each in assessment.subgroups]
    if any(each.variable.startswith("Skin tone") for each in assessment.subgroups):
        blocks.append(
            Paragraph(
                text="Skin tone is exploratory. The individual typology angle is estimated from the border of the "
                "image, without colour calibration and under the dermatoscope's own light. Unknown means that the "
                "border has a bluish cast or no skin, for which the angle has no meaning. Nearly all people in "
                "HAM10000 have light skin. How good the model is on dark skin is not known."
            )
        )
    if (proven := assessment.histology_only) is not None:
        blocks.append(
            _table(
                "Histology-proven lesions only",
                (Subgroup(group="melanoma and nevus, both by histology", **dict(proven)),),
                policy,
            )
        )
        blocks.append(
            Paragraph(
                text="Nevi that were excised looked suspicious to a dermatologist. They are harder to tell from "
                "melanoma than other nevi."
            )
        )
    return Section(name="groups", title="Groups", blocks=blocks)


def weakest_groups(report: Report) -> str:
    """One sentence on groups whose whole interval of sensitivity lies below that of all images. Empty for none.

    At the first policy, for groups with at least `trainer.metrics.subgroups.MIN_LESIONS` melanoma lesions.
    """
    policy = report.first_policy
    overall = report.assessment.images.policies[policy].sensitivity
    named, lower = [], 0
    for variable in report.assessment.subgroups:
        for group in variable.groups:
            found = group.policies[policy].sensitivity
            if found is None or "melanoma" in group.few:
                continue
            if found.value is None or found.high is None or overall.value is None or overall.low is None:
                continue
            lower += found.value < overall.value
            if found.high < overall.low:
                images = counted(group.images.melanoma, "melanoma image")
                lesions = counted(group.lesions.melanoma, "lesion")
                name = f"{group.group} ({variable.variable.lower()})"
                named.append(f"{name}, {percent_interval(found)} of {images} of {lesions}")
    if not named:
        return ""
    others = lower - len(named)
    beside = f" In {counted(others, 'other group')} it is lower too, perhaps by chance: see Groups." if others else ""
    return (
        "In these groups clearly more melanomas are missed, since the whole interval of their sensitivity lies below "
        f"that of all images ({percent_interval(overall)} at {policy}): {'; '.join(named)}.{beside} If a group holds "
        "hardly any melanomas, a model may have learned the group instead of the lesion."
    )


def within_sources(report: Report) -> str:
    """One sentence on the AUROC within each source. Empty where fewer than two sources have enough lesions."""
    policy = report.first_policy
    sources = {each.variable: each.groups for each in report.assessment.subgroups}.get("Source", ())
    enough = [group for group in sources if group.auroc is not None and not group.few]
    if len(enough) < 2:
        return ""
    named = "; ".join(
        f"{group.group} {number(_value(group.auroc))}, {percent(_value(group.policies[policy].sensitivity), 0)} and "
        f"{percent(_value(group.policies[policy].specificity), 0)}"
        for group in enough
    )
    overall = report.assessment.images.auroc.value
    lower = sum((_value(group.auroc) or 0) < (overall or 0) for group in enough)
    above = (
        f" In {lower} of these {len(enough)} it is below the AUROC of all images, {number(overall)}, which also "
        "compares images of different sources. The archive of a clinic holds one source."
        if lower
        else ""
    )
    return f"AUROC, and sensitivity and specificity at {policy}, within each source: {named}.{above}"


def unseen_sources(report: Report) -> str:
    """One sentence for each source that runs of the same recipe never saw. Empty for none."""
    policy = report.first_policy
    seen = {
        group.group: group.auroc
        for each in report.assessment.subgroups
        if each.variable == "Source"
        for group in each.groups
    }
    sentences = []
    for entry in report.sources_left_out:
        figures, with_it = entry.figures, seen.get(entry.source)
        if not figures or figures.auroc is None or with_it is None or policy not in figures.policies:
            continue
        at = figures.policies[policy]
        sentences.append(
            f"Trained without {entry.source}, the same recipe has an AUROC of {interval(figures.auroc)} on the images "
            f"of this source; trained with them, {number(with_it.value)}. Its threshold of {policy} gives a "
            f"sensitivity of {percent(_value(at.sensitivity), 0)} and a specificity of "
            f"{percent(_value(at.specificity), 0)} there."
        )
    if not sentences:
        return ""
    return " ".join((*sentences, "Expect such figures at a clinic whose images were not in training."))


def sources(report: Report) -> Section:
    """Runs that were trained without a source, on its images."""
    found = report.sources_left_out
    lead = " ".join(
        (
            "Images of one source share camera, light and case mix, and a model may learn the source instead of the "
            "lesion. The table of sources above is of this model, which has seen all of them.",
            within_sources(report),
        )
    ).strip()
    if not found:
        return Section(
            name="left-out-sources",
            title="Leaving one source out",
            blocks=(
                Paragraph(text=lead),
                Paragraph(
                    text="Not done. Train a run for each source with --without-source, and pass it with "
                    "--left-out-run RUN."
                ),
            ),
        )
    rows = []
    for entry in found:
        figures = entry.figures
        policy = next(iter(figures.policies)) if figures else ""
        at = figures.policies[policy] if figures else None
        rows.append(
            (
                f"{entry.source} (run {entry.run})",
                f"{figures.images.melanoma} / {figures.images.nevus}" if figures else "0 / 0",
                interval(figures.auroc if figures else None),
                percent_interval(at.sensitivity if at else None),
                percent_interval(at.specificity if at else None),
            )
        )
    return Section(
        name="left-out-sources",
        title="Leaving one source out",
        blocks=(
            Paragraph(text=lead),
            Table(
                caption="Runs on the test images of a source that they never saw, at their own thresholds",
                head=("Source left out", "Melanoma / nevus images", "AUROC", "Sensitivity", "Specificity"),
                rows=rows,
            ),
            *([Paragraph(kind="warning", text=unseen)] if (unseen := unseen_sources(report)) else []),
        ),
    )


def _given(report: Report) -> str:
    return "the labelled images" if report.kind == "external" else "the test images"


def _why_none(report: Report) -> str:
    known = report.external.other_diagnoses if report.external else None
    if known == 0:
        return "The labels name none."
    otherwise = "" if known else f", or {_given(report)} hold no other diagnosis"
    return f"Not done: left out with --skip-robustness{otherwise}."


def other_diagnoses(report: Report) -> Section:
    """The diagnoses that are neither melanoma nor nevus."""
    found = report.other_diagnoses
    if found is None:
        return Section(
            name="other-diagnoses",
            title="Other diagnoses",
            blocks=(Paragraph(text=_why_none(report)),),
        )
    names = list(report.policies)
    seven = report.subject.classes == "seven"
    seen = (
        "The network was trained on all seven diagnoses, but its score compares melanoma with nevus only."
        if seven
        else "The network has seen none of them in training."
    )
    rows = [
        (
            f"{_DIAGNOSES.get(entry.diagnosis, entry.diagnosis)} ({entry.diagnosis})",
            f"{entry.lesions} / {entry.images}",
            "{1:.2f} ({0:.2f} to {2:.2f})".format(*entry.quartiles),
            *(f"{entry.policies[name]} ({percent(entry.policies[name] / entry.images, 0)})" for name in names),
        )
        for entry in found
    ]
    return Section(
        name="other-diagnoses",
        title="Other diagnoses",
        blocks=(
            Paragraph(
                text=f"Archives hold more than melanomas and nevi. These are {_given(report)} of other "
                f"diagnoses. {seen} Basal cell carcinoma and actinic keratosis need treatment too: images of them "
                "that are not flagged are findings that this model misses."
            ),
            Table(
                caption="Images flagged as high risk, by diagnosis",
                head=("Diagnosis", "Lesions / images", "Probability: median (quartiles)", *names),
                rows=rows,
            ),
        ),
    )


def _table(variable: str, groups: Sequence[Subgroup], policy: str) -> Table:
    def mark(text: str, few: bool) -> str:
        return f"{text} †" if few and text != NONE else text

    return Table(
        caption=variable,
        head=("Group", "Melanoma lesions / images", "Nevus lesions / images", "AUROC", "Sensitivity", "Specificity"),
        rows=[
            (
                group.group,
                f"{group.lesions.melanoma} / {group.images.melanoma}",
                f"{group.lesions.nevus} / {group.images.nevus}",
                mark(interval(group.auroc), bool(group.few)),
                mark(percent_interval(group.policies[policy].sensitivity), "melanoma" in group.few),
                mark(percent_interval(group.policies[policy].specificity), "nevus" in group.few),
            )
            for group in groups
        ],
    )


def _forest_lines(assessment: Assessment) -> Iterator[tuple[str, Estimate | None]]:
    for each in assessment.subgroups:
        shown = [group for group in each.groups if group.auroc is not None and not group.few]
        if shown:
            yield each.variable, None
            for group in shown:
                yield group.group, group.auroc


def _value(estimate: Estimate | None) -> float | None:
    return estimate.value if estimate else None


def seven_classes(report: Report) -> Section | None:
    """How well a seven-class model tells all diagnoses apart."""
    found = report.seven_classes
    if not found:
        return None
    rows = [
        (
            entry.diagnosis,
            f"{entry.images:,}",
            f"{entry.lesions:,}",
            percent_interval(entry.sensitivity),
            interval(entry.auroc),
        )
        for entry in found.diagnoses
    ]
    present = {entry.diagnosis for entry in found.diagnoses}
    confusion = [
        (dx, *(str(count) for count in counts))
        for dx, counts in zip(DIAGNOSES, found.confusion, strict=True)
        if dx in present
    ]
    return Section(
        name="seven-diagnoses",
        title="The seven diagnoses",
        blocks=(
            Paragraph(
                text="Each image is given the diagnosis with the greatest network output, which is uncalibrated and "
                "depends on the class balance of the training. The balanced accuracy, the mean of the sensitivities, "
                f"is {interval(found.balanced_accuracy)}."
            ),
            Table(
                caption="Each diagnosis, with 95% intervals",
                head=("Diagnosis", "Images", "Lesions", "Sensitivity", "AUROC against all others"),
                rows=rows,
            ),
            Table(
                caption="Confusion matrix: images of each diagnosis by predicted diagnosis",
                head=("True diagnosis", *(f"predicted: {dx}" for dx in DIAGNOSES)),
                rows=confusion,
            ),
        ),
    )
