"""A bundle for a clinic: the model of another bundle, with calibration and thresholds fitted on the clinic's images."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from trainer.card.recalibrated import recalibrated_card
from trainer.data.counts import count_classes
from trainer.data.diagnoses import LABELS, melanoma_or_nevus
from trainer.data.external_labels import read_external, refuse_training_images
from trainer.errors import ExportError
from trainer.evaluation.subject import bundle_subject, load_worker_engine, score_in_batches
from trainer.export.folder import new_bundle, refuse_occupied, seal
from trainer.metrics.cross_fitting import cross_fit
from trainer.metrics.discrimination import CHANCE, auroc
from trainer.metrics.figures import Refusal
from trainer.metrics.subgroups import estimate
from trainer.report.document import counted, interval
from trainer.report.participants import swapped_labels
from trainer.thresholds.bootstrap import LesionBootstrap
from trainer.thresholds.policies import BOOTSTRAP_SEED, SENSITIVITIES, Policies, fit_policies
from trainer.thresholds.threshold import lesions_needed
from worker.inference.bundle import Bundle, BundleManifest, Calibration, Recalibration, load_bundle
from worker.inference.metrics import BundleMetrics, PolicyMetrics
from worker.inference.reference import raw_probabilities, write_expected

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
    """Write a bundle whose calibration and thresholds are fitted on images of another clinic. The model stays.

    Args:
        source: folder of the bundle with the model.
        target: folder of the new bundle.
        images: holds the images.
        labels: CSV, see `trainer.data.external_labels.read_external`.
        name: of the new bundle.
        version: of the new bundle.
        replace: whether a bundle in the target is replaced.
        say: called with a line about each step, for the person who waits.

    Returns:
        The new bundle, loaded and verified, and the policies with those that are refused.

    Raises:
        ExportError: the target is the source, or holds something else or a bundle that is not to be replaced; or the
            images show too few lesions to prove a sensitivity, or the model ranks them no better than chance.
        BundleError: the source was changed.
        MissingError: see `read_external`.
        InputError: see `read_external` and `refuse_training_images`.
    """
    bundle = load_bundle(source)
    if target.resolve() == source.resolve():
        raise ExportError(
            f"{target} is both source and target. Name another target: open jobs of the source need its bundle."
        )
    refuse_occupied(target, replace=replace, name=name, version=version)
    rows = read_external(images, labels)
    refuse_training_images(rows, bundle)
    # Calibration and thresholds concern melanoma and nevus only.
    if others := int((~rows["dx"].isin(LABELS)).sum()):
        say(f"Leaving out {counted(others, 'image')} of other diagnoses")
    rows = melanoma_or_nevus(rows)
    _refuse_too_few(rows)
    say("Scoring the images")
    scored = score_in_batches(bundle_subject(bundle, load_worker_engine(bundle)), rows)
    calibration, policies, figures = _fit(scored)
    origin = Recalibration(
        name=bundle.manifest.name,
        version=bundle.manifest.version,
        bundle_sha256=bundle.sha256,
        file=_DIGESTS,
        **dict(count_classes(scored)),
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
        # Sorted by hash: sorted by path, classes with folders of their own would stand together.
        (folder / _DIGESTS).write_text("".join(f"{digest}\n" for digest in sorted(scored["sha256"])))
        (folder / _CARD).write_text(recalibrated_card(manifest, origin, policies, before))
        _expect(folder, bundle, manifest)
        seal(folder, manifest)
    return load_bundle(target), policies


def _expect(folder: Path, source: Bundle, manifest: BundleManifest) -> None:
    """Write the expected results of the reference images with the new calibration and thresholds."""
    bundle = Bundle(folder=folder, sha256="", manifest=manifest)
    for file in folder.glob("reference/expected*.json"):
        raw = raw_probabilities(source, file.relative_to(folder).as_posix())
        write_expected(file, bundle, raw)


def _refuse_too_few(rows: pd.DataFrame) -> None:
    """Refuse fewer melanoma lesions than prove a sensitivity, or fewer nevus lesions than that."""
    needed, lesions = lesions_needed(min(SENSITIVITIES)), count_classes(rows).lesions
    if min(lesions.melanoma, lesions.nevus) < needed:
        raise ExportError(
            f"There are {lesions.melanoma} melanoma and {lesions.nevus} nevus lesions, and at least {needed} of each "
            "are needed: fewer melanomas do not prove a sensitivity of "
            f"{min(SENSITIVITIES):g}. Nothing was written. Label more images."
        )


def _fit(scored: pd.DataFrame) -> tuple[Calibration, Policies, BundleMetrics]:
    """Calibration and policies fitted on all of the images, and cross-fitted figures."""
    labels, lesions = scored["label"].to_numpy(), scored["lesion_id"].to_numpy(object)
    raw = scored["raw_probability"].to_numpy()
    bootstrap = LesionBootstrap(lesions, labels, seed=BOOTSTRAP_SEED)
    area = estimate(bootstrap(lambda weights: auroc(labels, raw, weights)))
    if swapped := swapped_labels(area):
        raise ExportError(f"{swapped} Nothing was written.")
    if area.low is not None and area.low <= CHANCE:
        raise ExportError(
            f"The area under the ROC curve on these images is {interval(area)}, which may be no better than chance. "
            "Nothing was written. Check the labels, label more images, or take another model."
        )
    calibration, policies = fit_policies(labels, raw, lesions)
    found = cross_fit(scored)
    if isinstance(found, Refusal):
        raise ExportError(f"{' '.join(found.refused.values())} Nothing was written.")
    metrics = BundleMetrics(
        **dict(count_classes(scored)),
        split=f"the images that it was recalibrated on, cross-fitted in {found.folds} parts by lesion",
        lesion_ids_missing=int((~scored["lesion_given"]).sum()),
        auroc=area,
        policies={
            name: PolicyMetrics(
                threshold=policies.thresholds[name].threshold,
                sensitivity=policy.sensitivity,
                specificity=policy.specificity,
                missed_melanoma_images=policy.missed,
            )
            for name, policy in found.policies.items()
        },
    )
    return calibration, policies, metrics
