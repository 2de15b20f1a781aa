"""The model card of a recalibrated bundle: its own part, then the card of the bundle that the model comes from."""

from trainer.card.results import caught, table
from trainer.metrics.cross_fitting import CROSS_FIT_CAVEAT
from trainer.report.document import NONE, counted, interval, percent, percent_interval
from trainer.thresholds.policies import SENSITIVITIES, YOUDEN, Policies
from worker.inference.bundle import BundleManifest, Recalibration
from worker.terminal import shown_probability


def recalibrated_card(manifest: BundleManifest, origin: Recalibration, policies: Policies, before: str) -> str:
    """Write ``MODEL_CARD.md``.

    Args:
        manifest: of the new bundle, with cross-fitted ``metrics``.
        origin: of the manifest.
        policies: with those that are refused.
        before: the card of the bundle that the model comes from.

    Returns:
        Markdown. It names no image and no folder.
    """
    images, lesions = origin.images, origin.lesions
    share = images.melanoma / (images.melanoma + images.nevus)
    figures = manifest.metrics
    unnamed = figures.lesion_ids_missing
    refused = [f"Not offered: `{name}`. {why}" for name, why in policies.refused.items()]
    parts = [
        f"# {manifest.name} {manifest.version}",
        "Calibrated probability of melanoma against nevus for one dermoscopic image. Made "
        f"{manifest.created:%Y-%m-%d}. **Not a medical device.** A low probability means a lower priority in a "
        'worklist, never "benign".',
        "## Recalibrated",
        f"The model, its preprocessing and its quality gate are those of {origin.name} {origin.version}, SHA-256 "
        f"`{origin.bundle_sha256}`. Calibration and thresholds were fitted again on images of another clinic: "
        f"{images.melanoma:,} melanoma images of {counted(lesions.melanoma, 'lesion')} and {images.nevus:,} nevus "
        f"images of {counted(lesions.nevus, 'lesion')}, with diagnoses from "
        "the person who ran `dermq-train recalibrate`.",
        f"Area under the ROC curve on these images: {interval(figures.auroc)}. Recalibration does "
        "not change it: a worklist keeps its order, and only flags and probabilities change.",
        _policies(manifest),
        *([f"**{warning}**"] if (warning := youden_warning(manifest)) else []),
        *refused,
        "Sensitivity and specificity are by image, with 95% intervals, and cross-fitted: the flag of each image comes "
        f"from thresholds that were chosen on other lesions. {CROSS_FIT_CAVEAT} A lesion is caught if all its images "
        "are flagged. The bound is the one-sided 95% lower bound. A dash means that there are enough lesions to choose "
        "the threshold, but too few without a part of them.",
        "- The figures hold for images like these. Other clinics, cameras and patients are unknown again.\n"
        f"- The calibrated probability holds where {percent(share)} of melanomas and nevi are melanomas, as here.\n"
        "- Every image counted, including those that the quality gate would refuse."
        + (
            f"\n- {counted(unnamed, 'image')} had no lesion id, and each counted as a lesion. If some show the same "
            "lesion, bounds and intervals are too good."
            if unnamed
            else ""
        ),
        "---",
        f"# Model card of {origin.name} {origin.version}",
        "**Its thresholds, and every figure that depends on them, are not those of this bundle.**",
        # Without its own title.
        before.partition("\n\n")[2].strip(),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def youden_warning(manifest: BundleManifest) -> str | None:
    """A warning where the default policy has a low sensitivity: where a model ranks poorly, Youden's J misses
    melanomas.

    Args:
        manifest: of a recalibrated bundle.
    """
    found = manifest.metrics.policies.get(YOUDEN)
    if found is None or found.sensitivity.or_nan >= min(SENSITIVITIES):
        return None
    safer = ", ".join(f"`{name}`" for name in manifest.thresholds if name != YOUDEN)
    return (
        f"`{YOUDEN}` misses {found.missed_melanoma_images:,} of {manifest.metrics.images.melanoma:,} melanoma images "
        f"here, because it weighs sensitivity and specificity equally. Submit with `--policy` and one of {safer}."
    )


def _policies(manifest: BundleManifest) -> str:
    rows = []
    for name, policy in manifest.thresholds.items():
        # None where there are enough lesions to choose a threshold, but too few without a part of them.
        found = manifest.metrics.policies.get(name)
        rows.append(
            (
                f"`{name}`",
                shown_probability(policy.threshold),
                shown_probability(policy.borderline_threshold),
                caught(policy.by_lesion),
                percent_interval(found.sensitivity) if found else NONE,
                percent_interval(found.specificity) if found else NONE,
            )
        )
    head = ("Policy", "High risk from", "Borderline from", "Lesions caught; bound", "Sensitivity", "Specificity")
    return table(head, rows)
