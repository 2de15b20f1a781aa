"""A bundle for a place: the model of another bundle, with calibration and thresholds fitted on the place's images."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from trainer.card.recalibrated import recalibrated_card
from trainer.data.external_labels import read_external, refuse_training_images
from trainer.data.ham10000 import LABELS, melanoma_or_nevus
from trainer.evaluation.subject import bundle_subject, score_in_batches
from trainer.export.folder import ExportError, new_bundle, refuse_occupied, seal
from trainer.metrics.assess import counts
from trainer.metrics.cross_fitting import cross_fit
from trainer.metrics.discrimination import CHANCE, auroc
from trainer.metrics.subgroups import as_json
from trainer.report.document import counted, interval
from trainer.report.participants import swapped_labels
from trainer.thresholds.bootstrap import LesionBootstrap
from trainer.thresholds.policies import BOOTSTRAP_SEED, SENSITIVITIES, Policies, freeze
from trainer.thresholds.threshold import lesions_needed
from worker.inference.bundle import Bundle, Calibration, Recalibration, load_bundle

_CARD = "MODEL_CARD.md"
_DIGESTS = "recalibrated-on.txt"


def recalibrate_bundle(
    source: Path,
    target: Path,
    images: Path,
    labels: Path,
    *,
    name: str,
    version: str,
    replace: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Bundle, Policies]:
    """Write a bundle whose calibration and thresholds are fitted on images from elsewhere; the model stays.

    Args:
        source: folder of the bundle whose model it is.
        target: folder of the new bundle.
        images: holds the images.
        labels: CSV, see `trainer.data.external_labels.read_external`.
        name: of the new bundle.
        version: of the new bundle.
        replace: whether a bundle in the target may go.
        say: takes a line about what is being done, for the person who waits.

    Returns:
        The new bundle, loaded and verified, and the policies with those that are refused.

    Raises:
        ExportError: the target is the source, or holds something else or a bundle that is not to be replaced; or the
            images show too few lesions to prove any sensitivity, or are ranked no better than by chance.
        BundleError: the source was changed.
        FileNotFoundError: see `read_external`.
        ValueError: see `read_external` and `refuse_training_images`.
    """
    bundle = load_bundle(source)
    if target.resolve() == source.resolve():
        raise ExportError(
            f"Received: {target} as source and as target. Expected: another folder, for jobs that are open under the "
            "source wait for a worker that has it."
        )
    refuse_occupied(target, replace=replace, name=name, version=version)
    rows = read_external(images, labels)
    refuse_training_images(rows, bundle)
    # Of other diagnoses neither calibration nor thresholds say anything.
    if others := int((~rows["dx"].isin(LABELS)).sum()):
        say(f"Leaving out {counted(others, 'image')} of other diagnoses")
    rows = melanoma_or_nevus(rows)
    _refuse_too_few(rows)
    say("Scoring the images")
    scored = score_in_batches(bundle_subject(bundle), rows)
    calibration, policies, figures = _fit(scored)
    origin = Recalibration(
        name=bundle.manifest.name,
        version=bundle.manifest.version,
        bundle_sha256=bundle.sha256,
        file=_DIGESTS,
        **counts(scored),
    )
    manifest = bundle.manifest.model_copy(
        update={
            "name": name,
            "version": version,
            "created": datetime.now(UTC).replace(microsecond=0),
            "thresholds": policies.thresholds,
            "calibration": calibration,
            "recalibration": origin,
            "metrics": figures,
        }
    )
    with new_bundle(target) as folder:
        for file in bundle.manifest.files:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(bundle.read(file))
        before = (folder / _CARD).read_text() if (folder / _CARD).exists() else ""
        # In an order that tells nothing: by path, classes that have folders of their own would stand together.
        (folder / _DIGESTS).write_text("".join(f"{digest}\n" for digest in sorted(scored["sha256"])))
        (folder / _CARD).write_text(recalibrated_card(manifest, origin, policies, before))
        seal(folder, manifest)
    return load_bundle(target), policies


def _refuse_too_few(rows: pd.DataFrame) -> None:
    """Fewer melanoma lesions prove no sensitivity; of nevi at least as many, for specificity is read off them."""
    needed, lesions = lesions_needed(min(SENSITIVITIES)), counts(rows)["lesions"]
    if min(lesions.values()) < needed:
        raise ExportError(
            f"Received: {lesions['melanoma']} melanoma and {lesions['nevus']} nevus lesions. Expected: at least "
            f"{needed} of each, for with fewer melanomas no sensitivity of {min(SENSITIVITIES):g} is proven. "
            "Nothing was written."
        )


def _fit(scored: pd.DataFrame) -> tuple[Calibration, Policies, dict[str, Any]]:
    """Calibration and policies fitted on all of the images, and cross-fitted figures for ``metrics``."""
    labels, lesions = scored["label"].to_numpy(), scored["lesion_id"].to_numpy(object)
    raw = scored["raw_probability"].to_numpy()
    bootstrap = LesionBootstrap(lesions, labels, seed=BOOTSTRAP_SEED)
    area = as_json(bootstrap(lambda weights: auroc(labels, raw, weights)))
    if swapped := swapped_labels(area):
        raise ExportError(f"{swapped} Nothing was written.")
    if area["low"] is not None and area["low"] <= CHANCE:
        raise ExportError(
            f"The area under the ROC curve on these images is {interval(area)}: perhaps no better than chance, which "
            "no threshold mends. Nothing was written. Expected: labels that are right, more images, or another model."
        )
    calibration, policies = freeze(labels, raw, lesions)
    crossed = cross_fit(scored)
    if "policies" not in crossed:
        raise ExportError(f"{' '.join(crossed['refused'].values())} Nothing was written.")
    figures = {
        "split": f"the images that it was recalibrated to, cross-fitted in {crossed['folds']} parts by lesion",
        **counts(scored),
        "lesion_ids_missing": int((~scored["lesion_given"]).sum()),
        "auroc": area,
        "policies": {
            policy: {
                "threshold": policies.thresholds[policy].threshold,
                "sensitivity": found["sensitivity"],
                "specificity": found["specificity"],
                "missed_melanoma_images": found["missed"],
            }
            for policy, found in crossed["policies"].items()
        },
    }
    return calibration, policies, figures
