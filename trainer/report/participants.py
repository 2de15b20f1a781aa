"""Who is in the report: participants, and whether any of them was seen before."""

from typing import Any

from trainer.metrics.discrimination import CHANCE
from trainer.report.document import Block, Flow, Paragraph, Section, Table, counted, interval
from trainer.thresholds.policies import SENSITIVITIES
from trainer.thresholds.threshold import lesions_needed

#: Ages that no person has, of those named.
_NAMED = 5
_SIDES = {"train": "Training", "validation": "Validation", "test": "Test", "unused": "Not used"}


def participants(report: dict[str, Any]) -> Section:
    """The flow of lesions and images from the data set to the test split."""
    flow = report["flow"]

    def size(part: dict[str, int]) -> str:
        return f"{counted(part['lesions'], 'lesion')}, {counted(part['images'], 'image')}"

    left_out = [f"Other diagnoses: {size(flow['other_diagnoses'])}"]
    if flow["left_out_by_limit"]:
        left_out.append(f"Left out by --limit: {counted(flow['left_out_by_limit'], 'image')}")
    sides = [
        (
            _SIDES.get(side, side),
            size(part["all"]),
            f"melanoma: {size(part['mel'])}",
            f"nevus: {size(part['nv'])}",
        )
        for side in _SIDES
        if (part := flow["splits"].get(side)) is not None
    ]
    kind, source = report["run"]["split_kind"], report["run"]["config"].get("without_source")
    lead = (
        "HAM10000 names lesions and no patients, so a lesion stands for a participant; two lesions of one person may "
        "be on two sides. Whole lesions were drawn, stratified by diagnosis."
    )
    blocks: list[Block] = [Paragraph(text=lead)]
    if kind != "lesion-disjoint":
        blocks = [
            Paragraph(
                kind="warning",
                text=f"The split of this run is {kind}: images of one lesion are on both sides, so every figure below "
                "is too good. It exists to measure that.",
            )
        ]
    blocks.append(
        Flow(
            all=f"HAM10000: {size(flow['all'])}",
            left_out=left_out,
            kept=f"Melanoma and nevus: {size(flow['two_classes'])}",
            sides=sides,
        )
    )
    if source:
        blocks.append(
            Paragraph(
                kind="warning",
                text=f"This run was trained and its thresholds were chosen without the images of {source}; those that "
                "stood on these sides are in the box of images not used. They are in the test split.",
            )
        )
    if folds := report["run"].get("folds"):
        blocks.append(
            Paragraph(
                text="This model has no validation side: what would be in it was trained on as well. Calibration and "
                f"thresholds are from predictions of {len(folds)} other runs of the same recipe, each for the fold "
                "that it was not trained on."
            )
        )
    if report["run"]["config"]["classes"] == "seven":
        blocks.append(
            Paragraph(
                text="This model was trained on all seven diagnoses and is read as melanoma against nevus; the images "
                "of the other diagnoses in training are not in the boxes of the lower row."
            )
        )
    return Section(name="participants", title="Participants", blocks=blocks)


def swapped_labels(area: dict[str, Any]) -> str | None:
    """What to say where nevi clearly score above melanomas, which no model does that has learned anything.

    Args:
        area: under the ROC curve, ``value``, ``low`` and ``high``.
    """
    # Without an interval every resample agrees.
    if (area["value"] if area["high"] is None else area["high"]) >= CHANCE:
        return None
    return (
        f"The area under the ROC curve is {interval(area)}, far below one half: nevi score above melanomas. Are "
        "melanoma and nevus (1 and 0) swapped in the labels?"
    )


def few_lesions(external: dict[str, Any]) -> str | None:
    """A warning where there are too few lesions of a class to say much.

    Args:
        external: ``lesions`` by class, as in ``report.json``.
    """
    enough, lesions = lesions_needed(min(SENSITIVITIES)), external["lesions"]
    why = {
        "melanoma": "no sensitivity that a policy is named after can be proven on them",
        "nevus": "the specificity is read off them",
    }
    short = [
        f"{counted(lesions[name], f'{name} lesion')} where at least {enough} are asked for, for {why[name]}"
        for name in why
        if lesions[name] < enough
    ]
    return f"Few lesions: {'; '.join(short)}. LoadedImages at intervals, not at figures." if short else None


def external_images(report: dict[str, Any]) -> Section:
    """What was handed in for an external evaluation."""
    external = report["external"]
    rows = [
        (name.capitalize(), f"{external['lesions'][name]:,}", f"{external['images'][name]:,}")
        for name in ("melanoma", "nevus")
    ]
    blocks: list[Block] = [
        Paragraph(
            text="These images come from elsewhere; none of them was used for training, calibration or thresholds, as "
            "far as this program can know. Every one was scored, also what a worker's quality gates would leave to a "
            "human unjudged. The sealed test split was not opened."
        ),
        Table(caption="Images and lesions", head=("Class", "Lesions", "Images"), rows=rows),
    ]
    if warning := swapped_labels(report["assessment"]["images"]["auroc"]):
        blocks.insert(0, Paragraph(kind="warning", text=warning))
    if others := external["other_diagnoses"]:
        blocks.append(
            Paragraph(
                text=f"{counted(others, 'image')} of other diagnoses: they count in no figure but those under "
                '"Other diagnoses".'
            )
        )
    if few := few_lesions(external):
        blocks.insert(0, Paragraph(kind="warning", text=few))
    if left := external["without_label"]:
        blocks.append(Paragraph(text=f"{counted(left, 'other image')} in the folder without a label: left out."))
    everything = sum(external["images"].values()) + external["other_diagnoses"]
    if missing := external["lesion_ids_missing"]:
        blocks.append(
            Paragraph(
                kind="warning",
                text=f"The labels name no lesion_id for {missing:,} of {everything:,} images, "
                "each of which counts as a lesion. If some show the same lesion, the intervals are too narrow.",
            )
        )
    if aside := external["ages_set_aside"]:
        given = sorted(set(aside))
        named = ", ".join(given[:_NAMED]) + (" and others" if len(given) > _NAMED else "")
        blocks.append(
            Paragraph(
                text=f"{counted(len(aside), 'age')} in the labels that no person has ({named}): counted as unknown."
            )
        )
    return Section(name="participants", title="Images", blocks=blocks)


def leakage(found: dict[str, Any]) -> Section:
    """Lesions, files and near-duplicates on both sides."""
    compared = found["compared"]
    sides = [_SIDES[side].lower() for side in found["sides"]]
    table = Table(
        caption=f"{compared['test']:,} test images (all diagnoses) against {compared['others']:,} of "
        + " and ".join(sides),
        head=("Check", "Found on both sides"),
        rows=(
            ("The same lesion, by lesion_id", str(found["lesions"])),
            ("The same file, by SHA-256", str(found["files"])),
            ("The same photograph, by perceptual hash and detail", str(found["near_duplicates"])),
        ),
    )
    blocks: list[Block] = [table]
    if found["pairs"]:
        shown = "; ".join(" and ".join(pair) for pair in found["pairs"])
        more = found["near_duplicates"] - len(found["pairs"])
        blocks.append(Paragraph(text=f"Near-duplicates: {shown}" + (f"; and {more} more." if more else ".")))
    if found["clean"]:
        blocks.append(Paragraph(text=f"Nothing of the test split was found in {' or '.join(sides)}."))
    else:
        blocks.append(
            Paragraph(kind="warning", text="Something of the test split was seen in training: figures may be too good.")
        )
    return Section(name="leakage", title="Leakage check", blocks=blocks)
