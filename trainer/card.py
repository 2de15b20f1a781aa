"""The model card, from the figures of the evaluation (Mitchell et al., "Model cards for model reporting", 2019).

It names no image: pictures and names of missed melanomas stay in the local report.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.policies import BOUND_CAVEAT
from trainer.report.document import counted, interval, number, percent, percent_interval
from trainer.reporting_items import Item, clear_derm, tripod_ai
from trainer.splits import LESION_DISJOINT, TEST, TRAIN, VALIDATION
from worker.bundle import BundleManifest, Quantisation

_LICENCE = "CC BY-NC 4.0 (weights, because of HAM10000); code Apache-2.0"


@dataclass(frozen=True, kw_only=True)
class _Facts:
    """What a card says of the model itself."""

    title: str
    made: str
    backbone: str
    size: int
    weights_from: str
    split_sha256: str
    licence: str


def model_card(manifest: BundleManifest, weights_from: str, report: dict[str, Any] | None = None) -> str:
    """Write ``MODEL_CARD.md`` of a bundle.

    Args:
        manifest: of the bundle, with its metrics.
        weights_from: where the backbone's first weights came from.
        report: ``report.json`` of the run; without it the card has the main results only.

    Returns:
        Markdown.
    """
    facts = _Facts(
        title=f"{manifest.name} {manifest.version}",
        made=f"{manifest.created:%Y-%m-%d}",
        backbone=manifest.backbone,
        size=manifest.input.size,
        weights_from=weights_from,
        split_sha256=manifest.split_manifest_sha256,
        licence=manifest.licence,
    )
    return _card(facts, manifest.metrics, report, manifest.quantisation)


def card_of_run(run: Path) -> str:
    """Write the card of a run that has no bundle yet.

    Args:
        run: a run folder after ``dermq-train evaluate``.

    Returns:
        Markdown.

    Raises:
        FileNotFoundError: the run was not evaluated.
    """
    for needed in ("metrics.json", "report.json"):
        if not (run / needed).is_file():
            raise FileNotFoundError(
                f"Received: run {run} without {needed}. Expected: a run after `dermq-train evaluate {run}`."
            )
    report = json.loads((run / "report.json").read_text())
    described = report["run"]
    facts = _Facts(
        title=f"Run {described['name']}",
        made=report["created"][:10],
        backbone=described["config"]["backbone"],
        size=described["config"]["size"],
        weights_from=described["weights_from"],
        split_sha256=described["split_sha256"],
        licence=_LICENCE,
    )
    return _card(facts, json.loads((run / "metrics.json").read_text()), report)


def _card(
    facts: _Facts, metrics: dict[str, Any], report: dict[str, Any] | None, quantisation: Quantisation | None = None
) -> str:
    parts = [
        f"# {facts.title}\n\nCalibrated probability of melanoma against nevus for one dermoscopic image. "
        f"Made {facts.made}.",
        _INTENDED_USE,
        _model(facts, report),
        _data(facts, metrics, report),
        _test_results(metrics, report),
    ]
    if report is not None:
        parts += [_policies(report), _calibration(report), _groups(report), _others(report), _classes(report)]
        parts += [_robustness(report), _parity(report) if quantisation is None else _eight_bits(quantisation)]
    parts += [
        _limits(report),
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
diagnosis, not for deciding that a lesion needs no examination, not for clinical photographs, and not for lesions that
are neither melanoma nor nevus. A low probability means a lower priority in a worklist, never "benign"."""

_LIMITS = """## Limits

- The test images come from the same clinics as the training images. Expect lower figures elsewhere; evaluate there with
  `dermq-train evaluate --external`.
- The calibrated probability holds at the share of melanomas in HAM10000's validation images, not in a screening
  population.
- Nearly all patients are light-skinned Europeans and Australians; performance on dark skin is unknown.
- HAM10000 names no patients: two lesions of one person may be on two sides of the split.
- The quality gate knows size, contrast and sharpness; a sharp picture of something else is scored. What is ungradable
  goes to a human."""


def _limits(report: dict[str, Any] | None) -> str:
    proven = report["assessment"]["histology_only"] if report else None
    if not proven or proven["auroc"] is None:
        return _LIMITS
    return (
        f"{_LIMITS}\n- Most nevi of HAM10000 were never excised and are easy. Against nevi proven by histology the "
        f"area under the ROC curve is {interval(proven['auroc'])}."
    )


def _model(facts: _Facts, report: dict[str, Any] | None) -> str:
    config = report["run"]["config"] if report else {}
    seven = config.get("classes") == "seven"
    head = (
        "softmax of the seven diagnoses, read as p(mel) / (p(mel) + p(nv))"
        if seven
        else "Dense 1 sigmoid, melanoma against nevus"
    )
    training = ""
    if config:
        training = f" {_training(config)}"
    return (
        f"## Model\n\n{facts.backbone}, {facts.size} x {facts.size} pixels, global average pooling, Dense 128 ReLU, "
        f"Dropout 0.5, {head}. First weights: {facts.weights_from}.{training} The shorter side is resized and the "
        "middle cut out, by the same code in training and in service. Platt scaling and thresholds are fitted on "
        "validation images only."
    )


def _training(config: dict[str, Any]) -> str:
    if config["classes"] == "seven":
        half = config["share_of_two"] / 2
        loss = f"cross-entropy, label smoothing {config['label_smoothing']:g}"
        draws = (
            f"{config['epochs']} rounds of {config['draws']:,} draws: {percent(half, 0)} melanomas, {percent(half, 0)} "
            "nevi, the other five diagnoses alike"
        )
    else:
        loss = f"binary focal loss (gamma {config['gamma']:g}, alpha {config['alpha']:g})"
        draws = f"{config['epochs']} passes over the melanomas with as many nevi"
    head = f"{config['head_epochs']} epochs of the head alone, then " if config["head_epochs"] else ""
    layers = "all layers" if config["unfreeze_last"] < 0 else f"the last {config['unfreeze_last']} layers"
    return (
        f"Trained: {head}{layers}, {draws}; {loss}; batch normalisation {config['batch_normalisation']}; AdamW, peak "
        f"rate {config['learning_rate']:g}, cosine decay, moving average of the weights {config['ema_momentum']:g}; "
        f"the epoch with the greatest validation AUC was kept; seed {config['seed']}."
    )


def _data(facts: _Facts, metrics: dict[str, Any], report: dict[str, Any] | None) -> str:
    images, lesions = metrics["images"], metrics["lesions"]
    lines = [
        "## Data\n",
        "HAM10000 (Tschandl et al., Scientific Data 5:180161, 2018; ViDIR Group, Medical University of Vienna; CC "
        "BY-NC 4.0): dermoscopic images of Vienna, Austria, and Queensland, Australia; diagnoses `mel` and `nv`. "
        "Melanomas are proven by histology, nevi by histology, follow-up, consensus or confocal microscopy. "
        f"{_split(metrics)}, SHA-256 of its manifest `{facts.split_sha256}`. Test: {images['melanoma']} melanoma "
        f"images of {lesions['melanoma']} lesions, {images['nevus']} nevus images of {lesions['nevus']} lesions.",
    ]
    if report is not None:
        rows = [
            (
                side,
                *(f"{part[dx]['lesions']:,} / {part[dx]['images']:,}" for dx in ("mel", "nv")),
            )
            for side in (TRAIN, VALIDATION, TEST)
            if (part := report["flow"]["splits"].get(side)) is not None
        ]
        lines += ["", _table(("Split", "Melanoma lesions / images", "Nevus lesions / images"), rows)]
        if report["run"]["config"]["classes"] == "seven":
            others = ", ".join(
                f"{part['images']:,} `{dx}` of {counted(part['lesions'], 'lesion')}"
                for dx, part in report["flow"]["training"].items()
                if dx not in ("mel", "nv")
            )
            lines += ["", f"Trained on the other diagnoses of the training side too: {others}."]
        leakage = report["leakage"]
        lines += [
            "",
            f"On both sides of the test split: {leakage['lesions']} lesions, {leakage['files']} files, "
            f"{leakage['near_duplicates']} near-duplicate pairs.",
        ]
    return "\n".join(lines)


def _split(metrics: dict[str, Any]) -> str:
    if LESION_DISJOINT in metrics["split"]:
        return "Split 70/15/15 by lesion"
    return (
        "**Split image by image, as the project's brief has it: test lesions were trained on, and every figure is too "
        "good.** The split"
    )


def _test_results(metrics: dict[str, Any], report: dict[str, Any] | None) -> str:
    rows = [
        ("Area under the ROC curve", interval(metrics["auroc"])),
        ("Area under the precision-recall curve", interval(metrics["auprc"])),
        ("Brier score", interval(metrics["brier"])),
    ]
    if report is not None:
        figures = report["assessment"]
        rows += [
            ("Area under the ROC curve, by lesion", interval(figures["lesions"]["auroc"])),
            (
                "Specificity at 95% sensitivity, read off the curve",
                interval(figures["images"]["specificity_at_95_sensitivity"]),
            ),
        ]
    for name, policy in metrics["policies"].items():
        rows += [
            (f"Sensitivity at `{name}` (probability {policy['threshold']:.3f})", interval(policy["sensitivity"])),
            (f"Specificity at `{name}`", interval(policy["specificity"])),
            (
                f"Melanoma images missed at `{name}`",
                f"{policy['missed_melanoma_images']} of {metrics['images']['melanoma']}",
            ),
        ]
        if report is not None and (by_lesion := report["assessment"]["lesions"]["policies"].get(name)):
            caught = interval(by_lesion["sensitivity_every_image"])
            rows.append((f"Melanoma lesions with every image flagged at `{name}`", caught))
    text = f"## Test results\n\n{metrics['split']}; {metrics['intervals']}.\n\n{_table(('Figure', 'Value'), rows)}"
    if report is not None:
        seeds = report["seeds"]
        if len(seeds["runs"]) == 1:
            text += "\n\nOne seed only."
        else:
            auroc = seeds["figures"]["auroc"]
            text += (
                f"\n\nOver {len(seeds['runs'])} seeds the AUROC is {number(auroc['mean'])} on average, from "
                f"{number(auroc['least'])} to {number(auroc['greatest'])}."
            )
    return text


def _policies(report: dict[str, Any]) -> str:
    rows = []
    for name, policy in report["policies"].items():
        at = {round(entry["prevalence"], 2): entry for entry in report["assessment"]["prevalence"][name]}
        rows.append(
            (
                f"`{name}`",
                number(policy["threshold"]),
                number(policy["borderline_from"]),
                percent_interval(at[0.02]["ppv"]),
                percent_interval(at[0.02]["referred"]),
            )
        )
    table = _table(("Policy", "High risk from", "Borderline from", "PPV at 2%", "Images flagged at 2%"), rows)
    refused = "".join(f"\n\nNot offered: `{name}`. {why}" for name, why in report["refused_policies"].items())
    return (
        "## Policies\n\n`youden`: greatest sensitivity + specificity on validation. `sensitivity:X`: the highest "
        "threshold whose one-sided 95% lower bound of sensitivity on validation melanoma lesions is at least X; a "
        f"lesion is caught when all its images are flagged. {BOUND_CAVEAT}\n\n{table}{refused}"
    )


def _calibration(report: dict[str, Any]) -> str:
    measures = report["assessment"]["calibration"]
    names = (
        ("Brier score", "brier"),
        ("Expected calibration error", "ece"),
        ("Slope", "slope"),
        ("In the large", "intercept"),
    )
    rows = [(label, interval(measures["before"][name]), interval(measures["after"][name])) for label, name in names]
    return f"## Calibration\n\n{_table(('Measure', 'Raw output', 'After calibration'), rows)}"


def _groups(report: dict[str, Any]) -> str:
    policy = next(iter(report["policies"]))
    rows = [
        _group_row(f"{stratum['variable']}: {group['group']}", group, policy)
        for stratum in report["assessment"]["strata"]
        for group in stratum["groups"]
    ]
    if (proven := report["assessment"]["histology_only"]) is not None:
        rows.append(_group_row("Histology-proven melanoma and nevus only", proven, policy))
    head = ("Group", "Melanoma / nevus lesions", "AUROC", f"Sensitivity at `{policy}`", f"Specificity at `{policy}`")
    return (
        "## Groups\n\nNot planned beforehand. † marks groups with fewer than five lesions of a class, where chance "
        f"rules. Skin tone is exploratory.\n\n{_table(head, rows)}"
    )


def _group_row(name: str, group: dict[str, Any], policy: str) -> tuple[str, ...]:
    lesions, figures = group["lesions"], group["policies"][policy]
    return (
        f"{name} †" if group["few"] else name,
        f"{lesions['melanoma']} / {lesions['nevus']}",
        interval(group["auroc"]),
        percent_interval(figures["sensitivity"]),
        percent_interval(figures["specificity"]),
    )


def _others(report: dict[str, Any]) -> str:
    if not report["other_diagnoses"]:
        return ""
    names = list(report["policies"])
    rows = [
        (
            f"`{entry['diagnosis']}`",
            str(entry["images"]),
            *(percent(entry["policies"][name] / entry["images"], 0) for name in names),
        )
        for entry in report["other_diagnoses"]
    ]
    head = ("Diagnosis", "Images", *(f"Flagged at `{name}`" for name in names))
    return f"## Other diagnoses\n\nTest images that are neither melanoma nor nevus.\n\n{_table(head, rows)}"


def _classes(report: dict[str, Any]) -> str:
    found = report.get("seven_classes")
    if not found:
        return ""
    rows = [
        (f"`{entry['diagnosis']}`", str(entry["images"]), interval(entry["sensitivity"]), interval(entry["auroc"]))
        for entry in found["diagnoses"]
    ]
    head = ("Diagnosis", "Test images", "Sensitivity", "AUROC against all others")
    return (
        "## Seven diagnoses\n\nThe bundle gives the probability of each diagnosis beside that of melanoma against "
        "nevus, and the sum of the malignant ones (`akiec`, `bcc`, `mel`). They are as the network says them: "
        "uncalibrated, and under the class balance of its training. Taking the most probable one, the balanced "
        f"accuracy is {interval(found['balanced_accuracy'])}.\n\n{_table(head, rows)}"
    )


def _eight_bits(cost: Quantisation) -> str:
    agree = min(cost.agreement.values())
    return (
        f"## 8 bits\n\nThe OpenVINO model computes {cost.layers} layers with 8-bit integers; all figures above are of "
        f"the model in floats. On the {cost.images:,} test images 8 bits change the AUROC by "
        f"{cost.auroc_difference:+.4f} and leave at least {percent(agree, 2)} of the triage flags as they are, at each "
        "policy."
    )


def _robustness(report: dict[str, Any]) -> str:
    found = report["robustness"]
    if found is None:
        return ""
    policy = next(iter(report["policies"]))
    worst: dict[str, dict[str, Any]] = {}
    for change in found["changes"]:
        worst[change["name"]] = change
    rows = [
        (
            f"{name}, {change['unit']}: {change['strength']:g}",
            interval(change["auroc"]),
            percent(change["policies"][policy]["changed"]),
        )
        for name, change in worst.items()
    ]
    return (
        f"## Robustness\n\n{sum(found['images'].values())} test images under changes drawn by a program, each in its "
        f"strongest form; unchanged, their AUROC is {interval(found['auroc'])}.\n\n"
        + _table(("Change", "AUROC", f"Flags changed at `{policy}`"), rows)
    )


def _parity(report: dict[str, Any]) -> str:
    found = report["engine_parity"]
    agree = min(policy["agreement"] for policy in found["policies"].values())
    return (
        f"## Engine parity\n\nKeras against {found['engine']} on {found['images']:,} test images: probabilities differ "
        f"by at most {found['largest']:.4f}, AUROC by {found['auroc_difference']:+.4f}, and at least "
        f"{percent(agree, 2)} of flags agree at every policy."
    )


def _checklist(name: str, source: str, first: str, items: Sequence[Item]) -> str:
    rows = [(item.number, item.topic, item.answer) for item in items]
    return f"## {name}\n\n{source}\n\n{_table((first, 'Topic', 'Where answered, or why not'), rows)}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])
