"""Train a melanoma classifier on HAM10000: the whole run, from top to bottom.

`trainer.run_folder` describes the files of a run. Only the reference preset scores the test split here, because its
method chooses the threshold there (`trainer.training.reference_preset`).
"""

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.console import Console
from sklearn.metrics import roc_auc_score

from trainer.config import RunConfig
from trainer.data.diagnoses import melanoma_or_nevus
from trainer.data.near_duplicates import linked_groups
from trainer.data.preprocessing import preprocessing_of
from trainer.data.readers import read_datasets
from trainer.data.resized_cache import load_inputs
from trainer.data.scan import DatasetScan, refuse_faults, scan_images
from trainer.data.splits import (
    RANDOM_IMAGES,
    UNUSED,
    VALIDATION,
    draw_split,
    first_lesions,
    images_with_split,
    manifest_sha256,
    read_manifest,
    write_manifest,
)
from trainer.errors import RunError, WeightsError
from trainer.networks.backbones import registered
from trainer.networks.backbones.weights import IMAGENET, NONE, check_file, file_digest
from trainer.networks.heads import Classifier, build_classifier, build_seven_class_classifier
from trainer.networks.predict import predict, predict_by, traced
from trainer.run_folder import RunFolder
from trainer.run_records import RunOrigin, TrainingData, data_sha256
from trainer.training.balanced_batches import AugmentedBatches
from trainer.training.batches import training_batches, training_images
from trainer.training.bundle_start import MODEL_NAME, copy_bundle_weights, keep_unseen_apart, starts_from_bundle
from trainer.training.checkpoint import Progress, read_progress, restore_checkpoint
from trainer.training.curves import draw_curves
from trainer.training.distillation import LoadedTeacher, TaughtBatches, describe_teacher, load_teachers, teacher_name
from trainer.training.fused_batch_normalisation import fused_batch_normalisation
from trainer.training.progress import TrainingProgress
from trainer.training.reference_preset import measure_reference
from trainer.training.stages import make_loss, prepare, stages_of, unfreeze
from trainer.training.validation_callback import EvaluateValidation, ValidationCallback
from worker.atomic_files import replace_file, write_text
from worker.inference.bundle import load_bundle
from worker.terminal import make_console


def fit(datasets: Sequence[Path], run: Path, cache: Path, config: RunConfig, console: Console | None = None) -> float:
    """Train, keep the epoch with the best validation AUC or the last one, and predict the validation images with it.

    An interrupted run continues after its last complete epoch, and ends with the same weights as an undisturbed one.

    Args:
        datasets: folders of the data sets.
        run: folder of the run: a new one, or that of an interrupted run with the same settings.
        cache: folder for the decoded training images and the thumbnails.
        config: the settings.
        console: shows the progress. Standard error by default.

    Returns:
        Area under the ROC curve on the validation images. Not a number for a run without them.

    Raises:
        DatasetError: the data set is not as published, or images do not decode and are not skipped.
        OccupiedError: the run is finished, or its folder is a file or holds files of no run.
        InputError: a setting does not fit the data or the backbone.
        RunError: the run was begun with other settings or data, validation has one class only, or another process
            trains in the folder.
        WeightsError: the initial weights cannot be had, or are not what they should be.
    """
    console = console or make_console(stderr=True)
    folder = RunFolder(run)
    folder.refuse_taken()
    recorded = as_recorded(config)
    if folder.begun:
        folder.check_resumable(recorded)
    keras.utils.set_random_seed(config.seed)
    # Before anything is written or decoded, so that a mistyped name costs nothing. A run that continues has its weights
    # in the checkpoint and does not need the file again.
    progress = read_progress(folder.checkpoint) if folder.begun else Progress()
    classifier = _build(config, first_weights=progress.epoch == 0)
    teachers = load_teachers([Path(run) for run in config.teachers], seven=config.classes == "seven")
    origin = None if folder.begun else _origin(config)
    everything, seen = read_scanned(datasets, cache, config, console)
    with folder.lock():
        if folder.begun:
            folder.check_resumable(recorded)
            # Again: another process may have continued the run until now.
            progress = read_progress(folder.checkpoint)
            everything = _continue(folder, everything, progress.epoch, console)
        else:
            groups = linked_groups(
                everything["lesion_id"], seen.thumbnails, config.near_duplicates, everything["patient_id"]
            )
            everything = _begin(folder, everything.assign(group=groups), recorded, config, origin, console)
        folder.tidy(progress.best_epoch)
        images = first_lesions(everything, config.limit)
        best = _train(classifier, folder, images, cache, config, console, teachers)
        classifier.scoring.load_weights(folder.best)
        if config.split == RANDOM_IMAGES:
            measure_reference(
                folder,
                images,
                lambda rows: _probabilities(classifier, rows, config),
                loss=make_loss(config),
                console=console,
            )
        finish(folder, classifier, images, config)
    return best


def read_scanned(
    datasets: Sequence[Path], cache: Path, config: RunConfig, console: Console | None = None
) -> tuple[pd.DataFrame, DatasetScan]:
    """The data set with the hash and the fault of each image, and the scan.

    Args:
        datasets: folders of the data sets.
        cache: folder that keeps the thumbnails.
        config: whether images that do not decode are skipped.
        console: prints that the first scan takes minutes.

    Raises:
        DatasetError: the data set is not as published, or images do not decode and are not skipped.
    """
    found = read_datasets(datasets)
    everything = found.images
    if console is not None:
        for reason, count in found.left_out.items():
            console.print(f"Left out of {reason}: {count:,} images")
        console.print(f"Scanning {len(everything):,} images ...")
    seen = scan_images([Path(path) for path in everything["path"]], cache)
    everything = everything.assign(sha256=seen.sha256, fault=seen.faults)
    if not config.skip_corrupt:
        refuse_faults(everything)
    return everything, seen


def as_recorded(config: RunConfig) -> RunConfig:
    """The settings as a run folder records them: names and hashes of files instead of paths.

    Raises:
        RunError: a teacher has no model.
        WeightsError: there is no such file.
    """
    config = config.model_copy(update={"teachers": tuple(teacher_name(Path(run)) for run in config.teachers)})
    if config.weights in (IMAGENET, NONE):
        return config
    path = Path(config.weights)
    folder = path / MODEL_NAME if starts_from_bundle(config.weights) else RunFolder(path).best
    file = folder if path.is_dir() else path
    digest = file_digest(file)
    if starts_from_bundle(config.weights) and config.weights_sha256 not in ("", digest):
        raise WeightsError(
            f"The {MODEL_NAME} of --weights {path} has SHA-256 {digest}, not {config.weights_sha256}. Name another "
            "bundle, or correct --weights-sha256."
        )
    return config.model_copy(update={"weights": path.name, "weights_sha256": digest})


def build_network(config: RunConfig, weights: str = NONE) -> Classifier:
    """The network of a run's settings."""
    build = build_seven_class_classifier if config.classes == "seven" else build_classifier
    return build(config.backbone, config.size, weights, config.weights_sha256)


def _build(config: RunConfig, *, first_weights: bool) -> Classifier:
    earlier, from_bundle = _earlier_run(config), starts_from_bundle(config.weights)
    in_a_file = earlier is None and not from_bundle
    classifier = build_network(config, config.weights if first_weights and in_a_file else NONE)
    # So that a number of layers above the backbone's is refused before anything is written.
    unfreeze(classifier.backbone, config.unfreeze_last)
    if first_weights and from_bundle:
        copy_bundle_weights(load_bundle(Path(config.weights)), classifier.scoring, config)
    if first_weights and earlier is not None:
        best = RunFolder(earlier).best
        check_file(best, config.backbone, None, config.weights_sha256 or file_digest(best))
        try:
            classifier.scoring.load_weights(best)
        except (OSError, ValueError) as error:
            raise WeightsError(
                f"The {best.name} of --weights {earlier} does not fit {config.backbone} for {config.classes} classes "
                f"({error}). Name a run of the same backbone and classes."
            ) from None
    return classifier


def _earlier_run(config: RunConfig) -> Path | None:
    """The run that this one continues from, if any."""
    if config.weights in (IMAGENET, NONE) or not Path(config.weights).is_dir() or starts_from_bundle(config.weights):
        return None
    return Path(config.weights)


def _origin(config: RunConfig) -> RunOrigin | None:
    """What this run records about the run that it continues from, if any."""
    if (earlier := _earlier_run(config)) is None:
        return None
    origin = RunFolder(earlier).origin()
    if config.fold and not RunFolder(earlier).finished:
        raise WeightsError(
            f"--weights {earlier} is not finished, and with --fold {config.fold} it must be: the folds of a recipe are "
            "trained equally long."
        )
    if config.seed in (seeds := sorted({step.config.seed for step in origin.lineage()})):
        raise WeightsError(
            f"--seed {config.seed} was already used by {earlier}: the same images would come in the same order with "
            f"the same augmentation. Choose another seed than {seeds}."
        )
    return origin


def _begin(
    folder: RunFolder,
    everything: pd.DataFrame,
    recorded: RunConfig,
    config: RunConfig,
    origin: RunOrigin | None,
    console: Console,
) -> pd.DataFrame:
    """Draw the split and record what the run is made from."""
    earlier = _earlier_run(config)
    split = draw_split(
        everything,
        kind=recorded.split,
        seed=recorded.split_seed,
        without_source=recorded.without_source,
        fold=recorded.fold,
    )
    if starts_from_bundle(config.weights):
        split = keep_unseen_apart(split, everything, config)
    broken = everything[everything["fault"] != ""]
    everything = everything.assign(split=split.mask(everything["fault"] != "", UNUSED))
    for row in broken.itertuples():
        folder.log(f"skipped {row.image_id}: {row.fault}")
    if len(broken):
        console.print(f"Skipping {len(broken)} images that do not decode: {', '.join(broken['image_id'])}")
    if earlier is not None and manifest_sha256(read_manifest(earlier)) != manifest_sha256(everything):
        raise WeightsError(
            f"--weights {earlier} is a run of another split, which may have been trained on test images of this one. "
            "Name a run with the same data, split, split seed, near-duplicates and source left out."
        )
    for teacher in map(Path, config.teachers):
        if manifest_sha256(read_manifest(teacher)) != manifest_sha256(everything):
            raise RunError(
                f"--teachers {teacher} is a run of another split, which may have been trained on test images of this "
                "one. Name a run with the same data, split, split seed and near-duplicates."
            )
    if recorded.has_validation:
        _refuse_one_class(everything, recorded.limit)
    digest = write_manifest(
        everything, folder.path, recorded.split_seed, kind=recorded.split, near_duplicates=recorded.near_duplicates
    )
    source = {IMAGENET: registered(recorded.backbone).weights_from, NONE: "random numbers"}
    folder.begin(
        recorded,
        split_sha256=digest,
        data=TrainingData(images=len(everything), sha256=data_sha256(everything)),
        skipped={str(row.image_id): str(row.fault) for row in broken.itertuples()},
        weights_from=source.get(
            recorded.weights,
            f"{_kind_of_weights(config)} {recorded.weights}, SHA-256 {recorded.weights_sha256}",
        ),
        continues_from=origin,
        teachers=tuple(describe_teacher(Path(run)) for run in config.teachers),
    )
    folder.log("begun")
    return everything


def _kind_of_weights(config: RunConfig) -> str:
    if starts_from_bundle(config.weights):
        return "bundle"
    return "file" if _earlier_run(config) is None else "run"


def _refuse_one_class(everything: pd.DataFrame, limit: int) -> None:
    two = melanoma_or_nevus(first_lesions(everything, limit))
    labels = two.loc[two["split"] == VALIDATION, "label"]
    if labels.nunique() < 2:
        raise RunError(
            f"Validation has {labels.sum()} melanoma and {len(labels) - labels.sum()} nevus images, and both are "
            "needed to choose epoch, calibration and thresholds. Take another "
            "--split-seed, or a data set with more lesions."
        )


def _continue(folder: RunFolder, everything: pd.DataFrame, epoch: int, console: Console) -> pd.DataFrame:
    """Use the split of the interrupted run, if the data are still the same."""
    folder.check_data(data_sha256(everything))
    if (digest := manifest_sha256(read_manifest(folder.path))) != folder.described().split_sha256:
        raise RunError(
            f"The split of {folder.path} was replaced after the run began: it has SHA-256 {digest}. Restore split.csv "
            "and split.json, or start a new run."
        )
    folder.log(f"continued after epoch {epoch}")
    console.print(f"Continuing after epoch {epoch}.")
    return images_with_split(everything, folder.path)


def _train(
    classifier: Classifier,
    folder: RunFolder,
    images: pd.DataFrame,
    cache: Path,
    config: RunConfig,
    console: Console,
    teachers: Sequence[LoadedTeacher],
) -> float:
    """Train the stages, each from where it was interrupted."""
    two = melanoma_or_nevus(images)
    train, validation = training_images(images, config), two[two["split"] == VALIDATION]
    stages = stages_of(config)
    progress = read_progress(folder.checkpoint)
    if progress.epoch == stages[-1].end or progress.given_up(config.patience, since=stages[-1].first):
        return progress.best_auc
    console.print(f"Resizing {len(train):,} training images ...")
    batches: AugmentedBatches | TaughtBatches = training_batches(train, cache, config)
    if teachers:
        batches = TaughtBatches(batches, teachers, seven=config.classes == "seven")
    evaluate = _evaluate_validation(classifier, validation, config) if config.has_validation else None
    keep_last = config.checkpoint == "last"
    with TrainingProgress(console, epochs=stages[-1].end, batches=len(batches), keep_last=keep_last) as shown:
        for stage in stages:
            if progress.epoch >= stage.end:
                continue
            prepare(classifier, stage, config, steps_per_epoch=len(batches))
            if progress.epoch:
                restore_checkpoint(folder.checkpoint, classifier.trained, optimizer=progress.epoch > stage.first)
            shown.begin(stage, progress.history, progress.best_auc)
            # Keras calls on_epoch_end once before the first epoch, so each epoch is started explicitly.
            start = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, _: batches.start(epoch))
            validation_callback = ValidationCallback(
                classifier,
                stage,
                progress,
                folder,
                evaluate=evaluate,
                keep_last=keep_last,
                patience=config.patience if stage is stages[-1] else 0,
            )
            with fused_batch_normalisation(classifier.trained):
                classifier.trained.fit(
                    batches,
                    initial_epoch=progress.epoch,
                    epochs=stage.end,
                    callbacks=[start, validation_callback, shown],
                    # Keras would shuffle batches with Python's own random generator, which no checkpoint holds.
                    shuffle=False,
                    verbose=0,
                )
    return progress.best_auc


def _evaluate_validation(classifier: Classifier, validation: pd.DataFrame, config: RunConfig) -> EvaluateValidation:
    """Computes loss and AUC of the validation images after an epoch."""
    inputs = load_inputs([Path(path) for path in validation["path"]], preprocessing_of(config))
    labels = validation["label"].to_numpy()
    loss, step = make_loss(config), traced(classifier.scoring)

    def evaluate() -> tuple[float | None, float]:
        probabilities = predict_by(step, inputs)
        auc = float(roc_auc_score(labels, probabilities))
        # With seven classes the loss is of all diagnoses, and validation holds two of them.
        return None if config.classes == "seven" else float(loss(labels[:, None], probabilities[:, None])), auc

    return evaluate


def finish(folder: RunFolder, classifier: Classifier, images: pd.DataFrame, config: RunConfig) -> None:
    """Write the model, and last its predictions for the validation images, if any: they mark a finished run."""
    if history := read_progress(folder.checkpoint).history:
        draw_curves(history, folder.curves)
    if not config.has_validation:
        folder.log("finished")
    with replace_file(folder.model) as unfinished:
        classifier.scoring.save(unfinished)
    if not config.has_validation:
        return
    two = melanoma_or_nevus(images)
    validation = two[two["split"] == VALIDATION]
    predicted = validation.assign(probability=_probabilities(classifier, validation, config))
    folder.log("finished")
    unwanted = ["path", "sha256", "fault", "group"]
    write_text(folder.predictions, predicted.drop(columns=unwanted, errors="ignore").to_csv(index=False))


def _probabilities(classifier: Classifier, images: pd.DataFrame, config: RunConfig) -> npt.NDArray[np.float64]:
    inputs = load_inputs([Path(path) for path in images["path"]], preprocessing_of(config))
    return predict(classifier.scoring, inputs)
