"""Figures by source of a run that was trained on the images of several clinics."""

from trainer.metrics.figures import SourceFigures
from trainer.report.document import NONE, Block, Paragraph, Section, Table, interval, percent_interval
from trainer.report.schema import Report
from worker.inference.metrics import FoldsCrossFit

#: Heads of the columns of `source_rows`, before those of the policies.
HEAD = ("Source", "Data set", "Trained on, melanomas / nevi", "Test, melanomas / nevi", "AUROC")
#: What a reader must know of the sources, for report and card.
CAVEAT = (
    "Within a source, the area under the ROC curve compares melanomas and nevi of the same clinics. A source with few "
    "lesions of a class has a wide interval or none."
)


def source_rows(found: tuple[SourceFigures, ...], policy: str) -> list[tuple[str, ...]]:
    """A row for each source: `HEAD`, and sensitivity and specificity at a policy."""
    return [
        (
            each.source,
            each.collection,
            f"{each.trained.melanoma:,} / {each.trained.nevus:,}",
            f"{each.images.melanoma:,} / {each.images.nevus:,}",
            interval(each.auroc) if each.auroc else NONE,
            percent_interval(each.policies[policy].sensitivity),
            percent_interval(each.policies[policy].specificity),
        )
        for each in found
    ]


def fold_rows(found: FoldsCrossFit, policy: str) -> list[tuple[str, ...]]:
    """A row for each clinic that was left out: images, area, and what thresholds of the other clinics give there."""
    rows: list[tuple[str, ...]] = []
    for fold in found.folds:
        at = fold.policies.get(policy)
        rows.append(
            (
                fold.fold.removeprefix("source:").replace("+", " + "),
                f"{fold.counts.images.melanoma:,} / {fold.counts.images.nevus:,}",
                f"{fold.auroc:.3f}",
                percent_interval(at.sensitivity) if at else NONE,
                percent_interval(at.specificity) if at else NONE,
            )
        )
    return rows


def clinics(report: Report) -> Section | None:
    """The section; None for a run that was trained on one data set."""
    if not report.sources:
        return None
    policy = report.first_policy
    blocks: list[Block] = [
        Paragraph(text=CAVEAT),
        Table(
            caption="On the test images of each source, with 95% intervals",
            head=(*HEAD, f"Sensitivity at {policy}", f"Specificity at {policy}"),
            rows=source_rows(report.sources, policy),
        ),
    ]
    return Section(name="clinics", title="By clinic", blocks=blocks)
