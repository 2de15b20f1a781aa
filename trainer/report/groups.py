"""For whom it holds: groups of images, sources, other diagnoses."""

from collections.abc import Iterator
from typing import Any

from trainer.data.ham10000 import DIAGNOSES
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

_DIAGNOSES = {
    "akiec": "actinic keratosis, Bowen's disease",
    "bcc": "basal cell carcinoma",
    "bkl": "benign keratosis-like lesion",
    "df": "dermatofibroma",
    "vasc": "vascular lesion",
}


def strata(report: dict[str, Any]) -> Section:
    """Figures by age, sex, site, source, proof, skin tone."""
    assessment = report["assessment"]
    policy = _first_policy(report)
    blocks: list[Block] = [
        Paragraph(
            text=f"Sensitivity and specificity are at {policy}. Many groups are small: a † marks a figure that rests "
            "on fewer than five lesions of a class, where chance rules. Groups differ in more than their name "
            "(melanomas of one clinic with nevi of another), and none of these comparisons was planned."
        )
    ]
    if weak := weakest_groups(report):
        blocks.insert(0, Paragraph(kind="warning", text=weak))
    if lines := list(_forest_lines(assessment)):
        blocks.append(
            Plots(
                plots=(
                    Plot(
                        source=plots.forest(lines, assessment["images"]["auroc"]["value"], "AUROC with 95% interval"),
                        alternative="AUROC by group with 95% intervals; the numbers are in the tables below.",
                        caption="AUROC by group; the dotted line is that of all images. Groups with fewer than five "
                        "lesions of a class are left out here.",
                    ),
                )
            )
        )
    blocks += [_table(stratum["variable"], stratum["groups"], policy) for stratum in assessment["subgroups"]]
    if any(stratum["variable"].startswith("Skin tone") for stratum in assessment["subgroups"]):
        blocks.append(
            Paragraph(
                text="Skin tone is exploratory. The individual typology angle is estimated from the border of the "
                "image, around the lesion, with no colour calibration and under the dermatoscope's own light; unknown "
                "means that the border has a bluish cast or no skin, for which the angle has no meaning. Nearly all "
                "people in HAM10000 have light skin: how the model does on dark skin is not known."
            )
        )
    if (proven := assessment["histology_only"]) is not None:
        blocks.append(
            _table(
                "Histology-proven lesions only", [{"group": "melanoma and nevus, both by histology", **proven}], policy
            )
        )
        blocks.append(
            Paragraph(
                text="Nevi that were excised looked suspicious to someone; they are harder, and nearer to what a "
                "dermatologist doubts about."
            )
        )
    return Section(name="groups", title="Groups", blocks=blocks)


def weakest_groups(report: dict[str, Any]) -> str:
    """One sentence on groups whose whole interval of sensitivity lies below that of all images; empty without any.

    At the first policy, of groups with at least `trainer.metrics.subgroups.FEWEST_LESIONS` melanoma lesions.

    Args:
        report: as in ``report.json``.
    """
    policy = _first_policy(report)
    overall = report["assessment"]["images"]["policies"][policy]["sensitivity"]
    named, lower = [], 0
    for stratum in report["assessment"]["subgroups"]:
        for group in stratum["groups"]:
            found = group["policies"][policy]["sensitivity"]
            if found is None or None in (found["high"], overall["low"]) or "melanoma" in group["few"]:
                continue
            lower += found["value"] < overall["value"]
            if found["high"] < overall["low"]:
                images = counted(group["images"]["melanoma"], "melanoma image")
                lesions = counted(group["lesions"]["melanoma"], "lesion")
                name = f"{group['group']} ({stratum['variable'].lower()})"
                named.append(f"{name}, {percent_interval(found)} of {images} of {lesions}")
    if not named:
        return ""
    others = lower - len(named)
    beside = (
        f" In {counted(others, 'other group')} it is lower too, but may be so by chance: see Groups." if others else ""
    )
    return (
        f"Clearly more melanomas are missed than among all images, where the sensitivity at {policy} is "
        f"{percent_interval(overall)}, in these groups, whose whole interval lies below that of all: "
        f"{'; '.join(named)}.{beside} Where a group holds hardly any melanomas, a model may have learned the group in "
        "place of the lesion."
    )


def within_sources(report: dict[str, Any]) -> str:
    """One sentence on what is left of the AUROC within each source; empty where fewer than two can be judged.

    Args:
        report: as in ``report.json``.
    """
    policy = _first_policy(report)
    strata_of = {stratum["variable"]: stratum["groups"] for stratum in report["assessment"]["subgroups"]}
    judged = [group for group in strata_of.get("Source", []) if group["auroc"] is not None and not group["few"]]
    if len(judged) < 2:
        return ""
    named = "; ".join(
        f"{group['group']} {number(group['auroc']['value'])}, "
        f"{percent(group['policies'][policy]['sensitivity']['value'], 0)} and "
        f"{percent(group['policies'][policy]['specificity']['value'], 0)}"
        for group in judged
    )
    overall = report["assessment"]["images"]["auroc"]["value"]
    lower = sum(group["auroc"]["value"] < overall for group in judged)
    above = (
        f" In {lower} of these {len(judged)} it is below the AUROC of all images, {number(overall)}, which compares "
        "images of different sources too; an archive of one clinic holds one source."
        if lower
        else ""
    )
    return f"AUROC, and sensitivity and specificity at {policy}, within each source: {named}.{above}"


def unseen_sources(report: dict[str, Any]) -> str:
    """One sentence for each source that runs of the same recipe never saw; empty where none was left out.

    Args:
        report: as in ``report.json``.
    """
    policy = _first_policy(report)
    seen = {
        group["group"]: group["auroc"]
        for stratum in report["assessment"]["subgroups"]
        if stratum["variable"] == "Source"
        for group in stratum["groups"]
    }
    sentences = []
    for entry in report["sources_left_out"]:
        figures, with_it = entry["figures"], seen.get(entry["source"])
        if not figures or figures["auroc"] is None or with_it is None or policy not in figures["policies"]:
            continue
        at = figures["policies"][policy]
        sentences.append(
            f"Trained without {entry['source']}, the same recipe has an AUROC of {interval(figures['auroc'])} on its "
            f"images, where with it the AUROC is {number(with_it['value'])}; its threshold of {policy} gives "
            f"{percent(at['sensitivity']['value'], 0)} sensitivity and {percent(at['specificity']['value'], 0)} "
            "specificity there."
        )
    if not sentences:
        return ""
    return " ".join((*sentences, "Expect a clinic that the training has not seen to be nearer to this."))


def sources(report: dict[str, Any]) -> Section:
    """Leave one source out."""
    found = report["sources_left_out"]
    lead = " ".join(
        (
            "Images of one source share camera, light and case mix, and a model may learn the source instead of the "
            "lesion. The table of sources above shows this model, which has seen all of them.",
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
                    text="Not done: no run was given that was trained without a source. Train one per source with "
                    "--without-source and pass them with --also RUN."
                ),
            ),
        )
    rows = []
    for entry in found:
        figures = entry["figures"]
        policy = next(iter(figures["policies"])) if figures else ""
        rows.append(
            (
                f"{entry['source']} (run {entry['run']})",
                f"{figures['images']['melanoma']} / {figures['images']['nevus']}" if figures else "0 / 0",
                interval(figures["auroc"]) if figures else NONE,
                percent_interval(figures["policies"][policy]["sensitivity"]) if figures else NONE,
                percent_interval(figures["policies"][policy]["specificity"]) if figures else NONE,
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


def _given(report: dict[str, Any]) -> str:
    return "the labelled images" if report["kind"] == "external" else "the test images"


def _why_none(report: dict[str, Any]) -> str:
    known = report["external"]["other_diagnoses"] if report["kind"] == "external" else None
    if known == 0:
        return "The labels name none."
    return f"Not done: left out by --quick{'' if known else f', or {_given(report)} hold no other diagnosis'}."


def other_diagnoses(report: dict[str, Any]) -> Section:
    """What happens to the diagnoses that are neither."""
    found = report["other_diagnoses"]
    if found is None:
        return Section(
            name="other-diagnoses",
            title="Other diagnoses",
            blocks=(Paragraph(text=_why_none(report)),),
        )
    names = list(report["policies"])
    seven = report["run"]["config"]["classes"] == "seven"
    seen = (
        "The network was trained on all seven diagnoses, but its score compares melanoma with nevus only."
        if seven
        else "The network has seen none of them in training."
    )
    rows = [
        (
            f"{_DIAGNOSES.get(entry['diagnosis'], entry['diagnosis'])} ({entry['diagnosis']})",
            f"{entry['lesions']} / {entry['images']}",
            "{1:.2f} ({0:.2f} to {2:.2f})".format(*entry["quartiles"]),
            *(f"{entry['policies'][name]} ({percent(entry['policies'][name] / entry['images'], 0)})" for name in names),
        )
        for entry in found
    ]
    return Section(
        name="other-diagnoses",
        title="Other diagnoses",
        blocks=(
            Paragraph(
                text=f"Archives hold more than melanomas and nevi. These are {_given(report)} of other "
                f"diagnoses. {seen} Basal cell carcinoma and actinic keratosis need treatment too: an image of them "
                "that is not flagged is a finding that this model does not make."
            ),
            Table(
                caption="Images flagged as high risk, by diagnosis",
                head=("Diagnosis", "Lesions / images", "Probability: median (quartiles)", *names),
                rows=rows,
            ),
        ),
    )


def _table(variable: str, groups: list[dict[str, Any]], policy: str) -> Table:
    def mark(text: str, few: bool) -> str:
        return f"{text} †" if few and text != NONE else text

    return Table(
        caption=variable,
        head=("Group", "Melanoma lesions / images", "Nevus lesions / images", "AUROC", "Sensitivity", "Specificity"),
        rows=[
            (
                group["group"],
                f"{group['lesions']['melanoma']} / {group['images']['melanoma']}",
                f"{group['lesions']['nevus']} / {group['images']['nevus']}",
                mark(interval(group["auroc"]), bool(group["few"])),
                mark(percent_interval(group["policies"][policy]["sensitivity"]), "melanoma" in group["few"]),
                mark(percent_interval(group["policies"][policy]["specificity"]), "nevus" in group["few"]),
            )
            for group in groups
        ],
    )


def _forest_lines(assessment: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any] | None]]:
    for stratum in assessment["subgroups"]:
        shown = [group for group in stratum["groups"] if group["auroc"] is not None and not group["few"]]
        if shown:
            yield stratum["variable"], None
            for group in shown:
                yield group["group"], group["auroc"]


def _first_policy(report: dict[str, Any]) -> str:
    return str(next(iter(report["policies"])))


def seven_classes(report: dict[str, Any]) -> Section | None:
    """How well a seven-class model tells all diagnoses apart."""
    found = report["seven_classes"]
    if not found:
        return None
    rows = [
        (
            entry["diagnosis"],
            f"{entry['images']:,}",
            f"{entry['lesions']:,}",
            percent_interval(entry["sensitivity"]),
            interval(entry["auroc"]),
        )
        for entry in found["diagnoses"]
    ]
    present = {entry["diagnosis"] for entry in found["diagnoses"]}
    confusion = [
        (dx, *(str(count) for count in counts))
        for dx, counts in zip(DIAGNOSES, found["confusion"], strict=True)
        if dx in present
    ]
    return Section(
        name="seven-diagnoses",
        title="The seven diagnoses",
        blocks=(
            Paragraph(
                text="Each image is given the diagnosis that the network finds most probable, uncalibrated and "
                "under the class balance of its training. The balanced accuracy, the mean of the sensitivities, is "
                f"{interval(found['balanced_accuracy'])}."
            ),
            Table(
                caption="Each diagnosis, with 95% intervals",
                head=("Diagnosis", "Images", "Lesions", "Sensitivity", "AUROC against all others"),
                rows=rows,
            ),
            Table(
                caption="What was said of the images of each diagnosis",
                head=("True diagnosis", *(f"said: {dx}" for dx in DIAGNOSES)),
                rows=confusion,
            ),
        ),
    )
