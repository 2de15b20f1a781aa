"""The model card, from the figures of the evaluation (Mitchell et al., "Model cards for model reporting", 2019).

It names no image. Pictures and names of missed melanomas stay in the local report.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.card.clinics import by_clinic, data_sets
from trainer.card.reporting_items import Item, clear_derm, tripod_ai
from trainer.card.results import (
    calibration,
    classes,
    groups,
    others,
    parity,
    policies,
    precision,
    robustness,
    table,
    test_results,
)
from trainer.card.training import first_weights, how_trained
from trainer.config import SOURCE_FOLD
from trainer.data.splits import LESION_DISJOINT, TEST, TRAIN, VALIDATION
from trainer.report.document import counted, interval
from trainer.report.groups import unseen_sources, weakest_groups, within_sources
from trainer.report.robustness import greatest_fall
from trainer.report.schema import Report, read_report
from trainer.run_folder import RunFolder
from trainer.thresholds.clinic_weights import PREVALENCE
from worker.images.fit import Fit
from worker.inference.bundle import BundleManifest, OutOfDistribution
from worker.inference.metrics import BundleMetrics

_LICENCE = "CC BY-NC 4.0 (weights, because of the training images); code Apache-2.0"


@dataclass(frozen=True, kw_only=True)
class _Facts:
    """What a card says about the model itself."""

    title: str
    made: str
    backbone: str
    size: int
    fit: Fit
    reduced_decoding: bool
    weights_from: str
    split_sha256: str
    licence: str
    gate: OutOfDistribution | None = None


def model_card(manifest: BundleManifest, weights_from: str, report: Report | None = None) -> str:
    """Write ``MODEL_CARD.md`` of a bundle.

    Args:
        manifest: of the bundle, with its metrics.
        weights_from: where the backbone's first weights came from.
        report: of the run. Without it the card has the main results only.

    Returns:
        Markdown.
    """
    facts = _Facts(
        title=f"{manifest.name} {manifest.version}",
        made=f"{manifest.created:%Y-%m-%d}",
        backbone=manifest.backbone,
        size=manifest.input.size,
        fit=manifest.input.fit,
        reduced_decoding=manifest.input.reduced_decoding,
        weights_from=weights_from,
        split_sha256=manifest.split_manifest_sha256,
        licence=manifest.licence,
        gate=manifest.out_of_distribution,
    )
    cost = manifest.precision_cost
    return _card(facts, manifest.metrics, report, precision(manifest.precision, cost) if cost else "")


def card_of_run(run: Path) -> str:
    """Write the card of a run that has no bundle yet.

    Args:
        run: a run folder after ``dermq-train evaluate``.

    Returns:
        Markdown.

    Raises:
        MissingError: the run was not evaluated.
        InputError: another version evaluated it.
    """
    metrics = RunFolder(run).metrics()
    report = read_report(run)
    subject, config = report.subject, RunFolder(run).origin().config
    facts = _Facts(
        title=f"Run {subject.name}",
        made=report.created[:10],
        backbone=subject.backbone,
        size=subject.size,
        fit=config.fit,
        reduced_decoding=config.reduced_decoding,
        weights_from=first_weights(RunFolder(run).origin()),
        split_sha256=subject.split_sha256,
        licence=_LICENCE,
    )
    return _card(facts, metrics, report)


def _card(facts: _Facts, metrics: BundleMetrics, report: Report | None, in_precision: str = "") -> str:
    parts = [
        f"# {facts.title}\n\nCalibrated probability of melanoma against nevus for one dermoscopic image. "
        f"Made {facts.made}.",
        _INTENDED_USE,
        # Before the figures, so that a reader of one number has read its limits.
        _limits(facts, report),
        _data(facts, metrics, report),
        test_results(metrics, report),
    ]
    if report is not None:
        parts += [
            by_clinic(report),
            policies(report),
            calibration(report),
            groups(report),
            others(report),
            classes(report),
        ]
        parts += [robustness(report), parity(report), in_precision]
    parts += [
        _model(facts, report),
        _TERMS,
        _checklist("TRIPOD+AI", "Collins et al., BMJ 385:e078378 (2024), item by item.", "Item", tripod_ai(report)),
        _checklist(
            "CLEAR Derm",
            "Daneshjou et al., JAMA Dermatology 158:90 (2022), by topic and in our own words.",
            "Part",
            clear_derm(report),
        ),
        f"## Licence\n\n{facts.licence}.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


_INTENDED_USE = """## Intended use

Research on ordering archives of dermoscopic images for review by dermatologists. **Not a medical device.** Not for
diagnosis, not to decide that a lesion needs no examination, not for clinical photographs, and not for lesions that are
neither melanoma nor nevus. A low probability means a lower priority in a worklist, never "benign"."""


_TERMS = """## Terms

- Area under the ROC curve (AUROC): probability that a melanoma is ranked before a nevus. 0.5 is chance, 1 is perfect.
- Sensitivity: share of the melanomas that are flagged `high_risk`. Specificity: share of the nevi that are not.
- PPV: share of the flagged images that are melanomas, at a given share of melanomas.
- Brier score: mean squared error of the probability; 0 is best. Expected calibration error: mean difference between
  stated probability and observed share. Slope 1 and in the large 0: neither too extreme nor too high.
- Platt scaling: the curve, fitted on validation or out-of-fold predictions, that turns an output into a probability.
- `mel` melanoma, `nv` nevus, `bcc` basal cell carcinoma, `akiec` actinic keratosis or Bowen's disease,
  `bkl` benign keratosis-like lesion, `df` dermatofibroma, `vasc` vascular lesion.
- ITA: individual typology angle, an estimate of skin tone from colour. Clear, of a vignette: the part of the picture
  inside a dark round rim.
- Engine parity: difference between the model that a worker runs and the model that was trained."""


_LIMITS = """## Limits

- The test images come from the same clinics as the training images. Expect lower figures at other clinics. Measure
  there with `dermq-train evaluate BUNDLE --external FOLDER --labels CSV`, which gives a report with intervals, and
  choose thresholds for that clinic with `dermq-train recalibrate`.
- The calibrated probability holds at the share of melanomas in HAM10000, not in a screening population. Below about
  0.01 only the order is informative, because validation had hardly any melanomas there.
- Nearly all patients are light-skinned Europeans and Australians. Performance on dark skin is unknown.
- HAM10000 names no patients: two lesions of one person may be on two sides of the split."""


def _gate(gate: OutOfDistribution | None) -> str:
    if gate is None or gate.caught is None:
        return (
            "- Letters, screenshots, X-rays and most photographs are recognised by colours and coarseness and go to a "
            "human\n  without a score. A portrait or a close photograph of skin may pass and get a score."
        )
    return (
        f"- Letters, screenshots, X-rays and photographs go to a human without a score: {100 * gate.caught:.1f}% of "
        "pictures were\n  caught by a gate that had seen none of their kind. The others got a score. At a clinic that "
        "is not among the training\n  sources, up to 2% of dermoscopic images go to a human too "
        "(docs/decisions/0024-an-ood-gate-that-has-seen-both-sides.md)."
    )


def _limits(facts: _Facts, report: Report | None) -> str:
    limits = [_LIMITS, _gate(facts.gate)]
    if facts.fit == "cover":
        limits.append("- Only the middle square of an image is used: a lesion at the edge of a wide picture is cut.")
    limits += [f"- {remark}" for remark in report.remarks] if report else []
    proven = report.assessment.histology_only if report else None
    if proven and proven.auroc is not None:
        limits.append(
            "- Most nevi of HAM10000 were never excised and are easy to tell from melanoma. Against nevi proven by "
            f"histology the area under the ROC curve is {interval(proven.auroc)}."
        )
    if report and (within := within_sources(report)):
        limits.append(f"- {within}")
    if report and (unseen := unseen_sources(report)):
        limits.append(f"- {unseen}")
    if report and (weak := weakest_groups(report)):
        limits.append(f"- {weak}")
    if report and (fall := greatest_fall(report)):
        limits.append(f"- {fall} Look at images under hair whatever their score.")
    return "\n".join(limits)


_FITS = {
    "cover": "The shorter side is resized and the middle cut out.",
    "contain": "The longer side is resized, and the rest of the square filled with the mirrored image.",
    "stretch": "The frame is resized to a square.",
}
_REDUCED = " A large JPEG is decoded at a half, a quarter or an eighth of its size."


def _model(facts: _Facts, report: Report | None) -> str:
    seven = report is not None and report.subject.classes == "seven"
    head = (
        "softmax of the seven diagnoses, read as p(mel) / (p(mel) + p(nv))"
        if seven
        else "Dense 1 sigmoid, melanoma against nevus"
    )
    training = f" {how_trained(report.subject.origin)}" if report and report.subject.origin else ""
    return (
        f"## Model\n\n{facts.backbone}, {facts.size} x {facts.size} pixels, global average pooling, Dense 128 ReLU, "
        f"Dropout 0.5, {head}. First weights: {facts.weights_from}.{training} {_FITS[facts.fit]}"
        f"{_REDUCED if facts.reduced_decoding else ''} Training and workers share this code. Platt scaling and "
        f"thresholds are fitted on {_fitted_on(report)}."
    )


def _fitted_on(report: Report | None) -> str:
    if folds := report.subject.folds if report else None:
        if all(fold.fold.startswith(SOURCE_FOLD) for fold in folds):
            return (
                f"predictions for the melanomas and nevi of {len(folds)} clinics outside test, each by a run of this "
                f"recipe that was trained without the clinic. The clinics weigh the same, at {PREVALENCE:.1%} melanomas"
            )
        return (
            f"predictions for the melanomas and nevi outside test, each by that one of {len(folds)} other runs of this "
            "recipe that was not trained on it"
        )
    return "validation images only"


def _data(facts: _Facts, metrics: BundleMetrics, report: Report | None) -> str:
    images, lesions = metrics.images, metrics.lesions
    lines = [
        "## Data\n",
        "HAM10000 (Tschandl et al., Scientific Data 5:180161, 2018; ViDIR Group, Medical University of Vienna; CC "
        "BY-NC 4.0): dermoscopic images of Vienna, Austria, and Queensland, Australia; diagnoses `mel` and `nv`. "
        "Melanomas are proven by histology, nevi by histology, follow-up, consensus or confocal microscopy. "
        f"{_split(metrics, report)}, SHA-256 of its manifest `{facts.split_sha256}`. Test: {images.melanoma} melanoma "
        f"images of {lesions.melanoma} lesions, {images.nevus} nevus images of {lesions.nevus} lesions.",
    ]
    if report is not None and (several := data_sets(report)):
        lines += ["", several]
    if report is not None and report.flow is not None and report.leakage is not None:
        sides = {side: report.flow.splits.get(side) for side in (TRAIN, VALIDATION, TEST)}
        rows = [
            (side, *(f"{size.lesions:,} / {size.images:,}" for size in (part.mel, part.nv)))
            for side, part in sides.items()
            if part is not None
        ]
        lines += ["", table(("Split", "Melanoma lesions / images", "Nevus lesions / images"), rows)]
        origin = report.subject.origin
        if origin and origin.config.limit:
            lines += [
                "",
                f"**A trial: only the first {origin.config.limit} lesions of each diagnosis and side were used.**",
            ]
        if report.subject.classes == "seven":
            others = ", ".join(
                f"{part.images:,} `{dx}` of {counted(part.lesions, 'lesion')}"
                for dx, part in report.flow.training.items()
                if dx not in ("mel", "nv")
            )
            lines += ["", f"Trained on the other diagnoses of the training side too: {others}."]
        leakage = report.leakage
        lines += [
            "",
            f"Found on both sides of the test split: {leakage.lesions} lesions, {leakage.files} files, "
            f"{leakage.near_duplicates} near-duplicate pairs.",
        ]
    return "\n".join(lines)


def _split(metrics: BundleMetrics, report: Report | None) -> str:
    if LESION_DISJOINT in metrics.split:
        # With folds, only the run on all of them is evaluated.
        folds = bool(report and report.subject.folds)
        return "Split by lesion, 15% in test, all of the rest in training" if folds else "Split 70/15/15 by lesion"
    return (
        "**Split image by image, as in the reference preset: the model was trained on images of test lesions, and "
        "every figure is too good.** The split"
    )


def _checklist(name: str, source: str, first: str, items: Sequence[Item]) -> str:
    rows = [(item.number, item.topic, item.answer) for item in items]
    return f"## {name}\n\n{source}\n\n{table((first, 'Topic', 'Where answered, or why not'), rows)}"
