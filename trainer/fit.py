"""Train a melanoma classifier on HAM10000: the whole run, from top to bottom.

A run folder holds ``config.json``, ``split.csv`` and ``split.json``, ``history.csv``, ``best.weights.h5``,
``model.keras`` and ``validation.csv``. The test split is not touched here.
"""

import csv
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import roc_auc_score

from trainer.augment import Augmentation
from trainer.canvas import load_canvases, load_inputs
from trainer.classifier import build_classifier, build_seven_class_classifier
from trainer.config import FitConfig
from trainer.ham10000 import DIAGNOSES, melanoma_or_nevus, read_ham10000
from trainer.sequence import BalancedBatches, ClassBalancedBatches
from trainer.splits import TRAIN, VALIDATION, check_lesion_disjoint, split_by_lesion, write_manifest
from worker.images.preprocess import Preprocessing

#: Images a prediction step holds; only memory depends on it.
_PREDICT_BATCH = 64


def fit(dataset: Path, run: Path, cache: Path, config: FitConfig) -> float:
    """Train, keep the epoch with the best validation AUC, and predict the validation split with it.

    Args:
        dataset: the HAM10000 folder.
        run: folder of this run; made, must not hold a run yet.
        cache: folder for the decoded training images.
        config: the settings.

    Returns:
        Area under the ROC curve on the validation images.

    Raises:
        DatasetError: the data set is not as published.
        FileExistsError: the run folder holds a run.
    """
    if (run / "config.json").exists():
        raise FileExistsError(f"Received: run folder {run}, which holds a run already. Expected: a new one.")
    keras.utils.set_random_seed(config.seed)
    seven = config.classes == "seven"
    # Before anything is written or decoded: a mistyped name costs nothing and leaves the run folder free.
    build = build_seven_class_classifier if seven else build_classifier
    classifier = build(config.backbone, config.size)
    everything = read_ham10000(dataset)
    everything["split"] = split_by_lesion(everything, config.split_seed)
    check_lesion_disjoint(everything)
    run.mkdir(parents=True, exist_ok=True)
    config.write(run)
    write_manifest(everything, run, config.split_seed)
    if config.limit:
        everything = first_lesions(everything, config.limit)
    two = melanoma_or_nevus(everything)
    train = everything if seven else two
    train = train[train["split"] == TRAIN]
    validation = two[two["split"] == VALIDATION]

    batches = _batches(train, load_canvases([Path(path) for path in train["path"]], cache), config)
    freeze_batch_normalisation(classifier.trained)
    classifier.trained.compile(
        optimizer=_optimizer(config, steps_per_epoch=len(batches)),
        loss=_loss(config),
        # XLA, Keras' default, made a step on CPU eight times slower.
        jit_compile=False,
    )
    inputs = load_inputs([Path(path) for path in validation["path"]], Preprocessing(size=config.size))
    watch = _ValidationWatch(classifier.scoring, inputs, validation["label"].to_numpy(), run)
    # The moving average must be swapped in before the watch looks at the weights, so it stands first.
    callbacks = [keras.callbacks.SwapEMAWeights(swap_on_epoch=True), watch]
    classifier.trained.fit(batches, epochs=config.epochs, callbacks=callbacks, verbose=2)

    classifier.scoring.load_weights(run / "best.weights.h5")
    classifier.scoring.save(run / "model.keras")
    validation.assign(probability=predict(classifier.scoring, inputs)).drop(columns="path").to_csv(
        run / "validation.csv", index=False
    )
    return watch.best


def _batches(
    train: pd.DataFrame, canvases: npt.NDArray[np.uint8], config: FitConfig
) -> BalancedBatches | ClassBalancedBatches:
    if config.classes == "two":
        return BalancedBatches(
            canvases,
            train["label"].to_numpy(),
            size=config.size,
            batch_size=config.batch_size,
            seed=config.seed,
            augmentation=Augmentation(),
        )
    return ClassBalancedBatches(
        canvases,
        train["dx"].map(DIAGNOSES.index).to_numpy(),
        classes=len(DIAGNOSES),
        draws=config.draws,
        size=config.size,
        batch_size=config.batch_size,
        seed=config.seed,
        augmentation=Augmentation(),
    )


def _loss(config: FitConfig) -> keras.losses.Loss:
    if config.classes == "two":
        return keras.losses.BinaryFocalCrossentropy(
            apply_class_balancing=True, alpha=config.alpha, gamma=config.gamma, name="focal_loss"
        )
    return keras.losses.CategoricalCrossentropy(label_smoothing=config.label_smoothing)


def predict(classifier: keras.Model, inputs: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Probability of melanoma for preprocessed images, (n,), before calibration."""
    parts = [
        keras.ops.convert_to_numpy(classifier(inputs[start : start + _PREDICT_BATCH].astype(np.float32)))
        for start in range(0, len(inputs), _PREDICT_BATCH)
    ]
    return np.concatenate(parts)[:, 0].astype(np.float64)


def first_lesions(images: pd.DataFrame, limit: int) -> pd.DataFrame:
    """Keep the images of the first ``limit`` lesions of each diagnosis on each side of the split."""
    lesions = images[["split", "dx", "lesion_id"]].drop_duplicates()
    kept = lesions.groupby(["split", "dx"]).head(limit)["lesion_id"]
    return images[images["lesion_id"].isin(kept)].reset_index(drop=True)


def freeze_batch_normalisation(model: keras.Model) -> None:
    """Keep batch normalisation in inference mode: its ImageNet statistics serve, and a step takes half the time."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


def _optimizer(config: FitConfig, *, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    warmup = round(config.warmup_epochs * steps_per_epoch)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        warmup_target=config.learning_rate,
        warmup_steps=warmup,
        decay_steps=max(1, config.epochs * steps_per_epoch - warmup),
    )
    return keras.optimizers.AdamW(
        schedule, weight_decay=config.weight_decay, use_ema=True, ema_momentum=config.ema_momentum
    )


class _ValidationWatch(keras.callbacks.Callback):  # type: ignore[misc]
    """Predicts the validation images after each epoch, logs, and keeps the best weights."""

    def __init__(
        self, scoring: keras.Model, inputs: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], run: Path
    ) -> None:
        super().__init__()
        self._scoring = scoring
        self._inputs, self._labels, self._run = inputs, labels, run
        self.best = -np.inf

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        auc = float(roc_auc_score(self._labels, predict(self._scoring, self._inputs)))
        loss = float((logs or {})["loss"])
        with (self._run / "history.csv").open("a", newline="") as file:
            writer = csv.writer(file)
            if epoch == 0:
                writer.writerow(("epoch", "train_loss", "validation_auc"))
            writer.writerow((epoch + 1, f"{loss:.6f}", f"{auc:.6f}"))
        print(f"epoch {epoch + 1}: validation AUC {auc:.4f}" + (", the best so far" if auc > self.best else ""))
        if auc > self.best:
            self.best = auc
            self._scoring.save_weights(self._run / "best.weights.h5")
