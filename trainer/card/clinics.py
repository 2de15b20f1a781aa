"""The model card's sections on a model of several clinics."""

from collections.abc import Sequence

from trainer.card.results import table
from trainer.metrics.figures import SourceFigures
from trainer.report.clinics import CAVEAT, HEAD, fold_rows, source_rows
from trainer.report.schema import Report

#: Whom to cite, by source.
CITATIONS = {
    "isic2017": 'Codella et al., "Skin lesion analysis toward melanoma detection" (ISIC 2017)',
    "isic2020": 'Rotemberg et al., "A patient-centric dataset of images and metadata for identifying melanomas using '
    'clinical context" (ISIC 2020)',
    "bcn20000": 'Combalia et al., "BCN20000: dermoscopic lesions in the wild"',
    "bcn_acral": 'Combalia et al., "BCN20000: dermoscopic lesions in the wild"',
}


def by_clinic(report: Report) -> str:
    """Figures on the test images of each source, and on clinics that were left out. Empty for one data set."""
    if not report.sources:
        return ""
    policy = report.first_policy
    at = (f"Sensitivity at `{policy}`", f"Specificity at `{policy}`")
    parts = [
        f"## By clinic\n\nTest images of each source, at the shipped thresholds. {CAVEAT}\n\n"
        f"{table((*HEAD, *at), source_rows(report.sources, policy))}"
    ]
    if report.crossfit and all(fold.policies for fold in report.crossfit.folds):
        parts.append(
            "Clinics that were left out: each predicted by a network that was trained without it, and flagged by "
            "thresholds that were chosen on the others.\n\n"
            + table(
                ("Left out", "Melanoma / nevus images", "AUROC", *at),
                fold_rows(report.crossfit, policy),
            )
        )
    return "\n\n".join(parts)


def data_sets(report: Report) -> str:
    """Sources with licences and citations, and what is confounded. Empty for one data set."""
    if not report.sources:
        return ""
    single = [each for each in report.sources if " + " not in each.source]
    rows = [
        (
            each.source,
            each.collection,
            f"{each.trained.melanoma:,} / {each.trained.nevus:,}",
            each.licence or "not stated",
            each.geometry or "not stated",
        )
        for each in single
    ]
    lines = [
        "Trained on:",
        "",
        table(("Source", "Data set", "Melanomas / nevi in training", "Licence", "Frames"), rows),
    ]
    if cited := sorted({CITATIONS[each.source] for each in single if each.source in CITATIONS}):
        lines += ["", f"Cite: {'; '.join(cited)}."]
    if confounded := _confounded(single):
        lines += ["", confounded]
    return "\n".join(lines)


def _confounded(sources: Sequence[SourceFigures]) -> str:
    """One sentence on sources with one class only. Empty for none."""
    without = {
        "nevi": [each.source for each in sources if each.trained.melanoma and not each.trained.nevus],
        "melanomas": [each.source for each in sources if each.trained.nevus and not each.trained.melanoma],
    }
    named = "; ".join(f"{', '.join(names)} without {kind}" for kind, names in without.items() if names)
    if not named:
        return ""
    return (
        f"Confounded: in training there are {named}. A model can learn that the look of such a source means a class; "
        "the figures within sources show how much is left without that."
    )
