"""The participants of a report, and whether any of them was in training."""

from trainer.metrics.discrimination import CHANCE
from trainer.metrics.figures import ExternalImages, Leakage, Size
from trainer.metrics.figures import Flow as FlowFigures
from trainer.report.document import Block, Flow, Paragraph, Section, Table, counted, interval
from trainer.report.schema import Report
from trainer.thresholds.policies import SENSITIVITIES
from trainer.thresholds.threshold import lesions_needed
from worker.inference.metrics import Estimate

#: Impossible ages that the report names. The others are counted.
_NAMED = 5
_SIDES = {"train": "Training", "validation": "Validation", "test": "Test", "unused": "Not used"}


def participants(report: Report, flow: FlowFigures) -> Section:
    """The flow of lesions and images from the data set to the test split."""

    def size(part: Size) -> str:
        return f"{counted(part.lesions, 'lesion')}, {counted(part.images, 'image')}"

    left_out = [f"Other diagnoses: {size(flow.other_diagnoses)}"]
    if flow.left_out_by_limit:
        left_out.append(f"Left out by --limit: {counted(flow.left_out_by_limit, 'image')}")
    sides = [
        (
            _SIDES.get(side, side),
            size(part.all),
            f"melanoma: {size(part.mel)}",
            f"nevus: {size(part.nv)}",
        )
        for side in _SIDES
        if (part := flow.splits.get(side)) is not None
    ]
    origin, kind = report.subject.origin, report.subject.split_kind
    source = origin.config.without_source if origin else ""
    lead = (
        "HAM10000 names lesions and no patients, so a lesion counts as a participant, and two lesions of one person "
        "may be on two sides. Whole lesions were drawn, stratified by diagnosis."
    )
    blocks: list[Block] = [Paragraph(text=lead)]
    if kind != "lesion-disjoint":
        blocks = [
            Paragraph(
                kind="warning",
                text=f"The split of this run is {kind}: images of one lesion are on both sides, so every figure below "
                "is too good. The run exists to measure by how much.",
            )
        ]
    blocks.append(
        Flow(
            all=f"HAM10000: {size(flow.all)}",
            left_out=left_out,
            kept=f"Melanoma and nevus: {size(flow.two_classes)}",
            sides=sides,
        )
    )
    if source:
        blocks.append(
            Paragraph(
                kind="warning",
                text=f"This run was trained, and its thresholds were chosen, without the images of {source}. In the "
                "diagram they are among the images not used. The test split still has its images of this source.",
            )
        )
    if folds := report.subject.folds:
        blocks.append(
            Paragraph(
                text="This model has no validation images: it was trained on them as well. Calibration and thresholds "
                f"come from predictions of {len(folds)} other runs of the "
                "same recipe, each for the fold that it held out."
            )
        )
    if report.subject.classes == "seven":
        blocks.append(
            Paragraph(
                text="This model was trained on all seven diagnoses and is read as melanoma against nevus. The lower "
                "row of the diagram leaves out its training images of the other diagnoses."
            )
        )
    return Section(name="participants", title="Participants", blocks=blocks)


def swapped_labels(area: Estimate) -> str | None:
    """A warning where nevi clearly score above melanomas. A model that learned anything does not do that.

    Args:
        area: under the ROC curve.
    """
    # Without an interval, every resample gave the same value.
    high = area.value if area.high is None else area.high
    if high is None or high >= CHANCE:
        return None
    return (
        f"The area under the ROC curve is {interval(area)}, far below one half: nevi score above melanomas. Check "
        "whether melanoma and nevus (1 and 0) are swapped in the labels."
    )


def few_lesions(external: ExternalImages) -> str | None:
    """A warning where a class has too few lesions for precise figures."""
    enough = lesions_needed(min(SENSITIVITIES))
    short = [
        counted(count, f"{name} lesion")
        for name in ("melanoma", "nevus")
        if (count := getattr(external.lesions, name)) < enough
    ]
    if not short:
        return None
    return (
        f"Few lesions: {' and '.join(short)}, where at least {enough} of each class are needed to prove a sensitivity "
        f"of {min(SENSITIVITIES):.0%}. Read the intervals rather than the figures."
    )


def external_images(report: Report, external: ExternalImages) -> Section:
    """The images of an evaluation at another clinic."""
    rows = [
        (name.capitalize(), f"{getattr(external.lesions, name):,}", f"{getattr(external.images, name):,}")
        for name in ("melanoma", "nevus")
    ]
    blocks: list[Block] = [
        Paragraph(
            text="As far as this program can know, none of these images was used for training, calibration or "
            "thresholds. Every one was scored, including those that a worker's quality gate would refuse. Nothing "
            "accessed the test split."
        ),
        Table(caption="Images and lesions", head=("Class", "Lesions", "Images"), rows=rows),
    ]
    if warning := swapped_labels(report.assessment.images.auroc):
        blocks.insert(0, Paragraph(kind="warning", text=warning))
    if others := external.other_diagnoses:
        blocks.append(
            Paragraph(text=f'{counted(others, "image")} of other diagnoses: only "Other diagnoses" counts them.')
        )
    if few := few_lesions(external):
        blocks.insert(0, Paragraph(kind="warning", text=few))
    if left := external.without_label:
        blocks.append(Paragraph(text=f"{counted(left, 'image')} in the folder without a label: left out."))
    everything = external.images.melanoma + external.images.nevus + external.other_diagnoses
    if missing := external.lesion_ids_missing:
        blocks.append(
            Paragraph(
                kind="warning",
                text=f"The labels name no lesion_id for {missing:,} of {everything:,} images. Each of them counts as a "
                "lesion. If some show the same lesion, the intervals are too narrow.",
            )
        )
    if aside := external.ages_set_aside:
        given = sorted(set(aside))
        named = ", ".join(given[:_NAMED]) + (" and others" if len(given) > _NAMED else "")
        blocks.append(
            Paragraph(text=f"{counted(len(aside), 'impossible age')} in the labels ({named}): counted as unknown.")
        )
    return Section(name="participants", title="Images", blocks=blocks)


def leakage(found: Leakage) -> Section:
    """Lesions, files and near-duplicates on both sides."""
    compared = found.compared
    sides = [_SIDES[side].lower() for side in found.sides]
    table = Table(
        caption=f"{compared.test:,} test images (all diagnoses) against {compared.others:,} of " + " and ".join(sides),
        head=("Check", "Found on both sides"),
        rows=(
            ("The same lesion, by lesion_id", str(found.lesions)),
            ("The same file, by SHA-256", str(found.files)),
            ("The same photograph, by perceptual hash and detail", str(found.near_duplicates)),
        ),
    )
    blocks: list[Block] = [table]
    if found.pairs:
        shown = "; ".join(" and ".join(pair) for pair in found.pairs)
        more = found.near_duplicates - len(found.pairs)
        blocks.append(Paragraph(text=f"Near-duplicates: {shown}" + (f"; and {more} more." if more else ".")))
    if found.clean:
        blocks.append(Paragraph(text=f"No image of the test split was found in {' or '.join(sides)}."))
    else:
        blocks.append(
            Paragraph(kind="warning", text="Images of the test split were in training: figures may be too good.")
        )
    return Section(name="leakage", title="Leakage check", blocks=blocks)
