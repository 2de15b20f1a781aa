"""The model card, written from the bundle's own figures (Mitchell et al., "Model cards for model reporting", 2019)."""

from typing import Any

from worker.bundle import BundleManifest


def model_card(manifest: BundleManifest, weights_from: str) -> str:
    """Write ``MODEL_CARD.md``.

    Args:
        manifest: of the bundle, with its metrics.
        weights_from: where the backbone's first weights came from.

    Returns:
        Markdown.
    """
    metrics = manifest.metrics
    images, lesions = metrics["images"], metrics["lesions"]
    rows = [
        ("Area under the ROC curve", _figure(metrics["auroc"])),
        ("Area under the precision-recall curve", _figure(metrics["auprc"])),
        ("Brier score", _figure(metrics["brier"])),
    ]
    for name, policy in metrics["policies"].items():
        rows += [
            (f"Sensitivity at `{name}` (probability {policy['threshold']:.3f})", _figure(policy["sensitivity"])),
            (f"Specificity at `{name}`", _figure(policy["specificity"])),
            (f"Melanoma images missed at `{name}`", f"{policy['missed_melanoma_images']} of {images['melanoma']}"),
        ]
    table = "\n".join(f"| {label} | {value} |" for label, value in rows)
    return f"""# {manifest.name} {manifest.version}

Calibrated probability of melanoma against nevus for one dermoscopic image. Made {manifest.created:%Y-%m-%d}.

## Intended use

Research on ordering archives of dermoscopic images for review by dermatologists. **Not a medical device.** Not for
diagnosis, not for deciding that a lesion needs no examination, not for clinical photographs, and not for lesions that
are neither melanoma nor nevus: of the other diagnoses of HAM10000 the model has seen none. A low probability means a
lower priority in a worklist, never "benign".

## Model

{manifest.backbone}, {manifest.input.size} x {manifest.input.size} pixels, global average pooling, Dense 128 ReLU,
Dropout 0.5, Dense 1 sigmoid. First weights: {weights_from}. Fine-tuned with batch normalisation in inference mode,
binary focal loss, balanced batches, AdamW and a moving average of the weights. Platt scaling and threshold are fitted
on validation images only.

## Data

HAM10000 (Tschandl et al., Scientific Data 5:180161, 2018; ViDIR Group, Medical University of Vienna; CC BY-NC 4.0),
diagnoses `mel` and `nv`. Lesion-disjoint split 70/15/15, SHA-256 of its manifest `{manifest.split_manifest_sha256}`.
Test: {images["melanoma"]} melanoma images of {lesions["melanoma"]} lesions, {images["nevus"]} nevus images of
{lesions["nevus"]} lesions. Nearly all patients are light-skinned Europeans and Australians; performance on dark skin is
unknown. Melanomas are proven by histology, many nevi by follow-up or consensus only.

## Test results

{metrics["split"]}; {metrics["intervals"]}.

| Figure | Value |
|---|---|
{table}

## Limits

- The test images come from the same clinics as the training images. Expect lower figures elsewhere.
- The calibrated probability holds at the share of melanomas in HAM10000's validation images, not in a screening
  population.
- The quality gate knows size, contrast and sharpness only; a sharp picture of something else is scored.

## Licence

{manifest.licence}.
"""


def _figure(interval: dict[str, Any]) -> str:
    return f"{interval['value']:.3f} ({interval['low']:.3f} to {interval['high']:.3f})"
