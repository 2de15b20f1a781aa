"""The stages of a training: first only the head on a frozen backbone, then fine-tuning of the backbone's end.

Batch normalisation stays in inference mode unless the settings say otherwise, and always while only the head learns.
"""

from dataclasses import dataclass

import keras

from trainer.config import RunConfig
from trainer.errors import InputError
from trainer.networks.heads import Classifier

HEAD, FINE_TUNING = "head", "fine-tuning"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Epochs under one optimizer.

    Args:
        name: `HEAD` or `FINE_TUNING`.
        first: number of its first epoch, counted from 0 over the whole training.
        end: number of the epoch after its last.
    """

    name: str
    first: int
    end: int


def stages_of(config: RunConfig) -> list[Stage]:
    """The stages that have epochs, in order."""
    end = config.head_epochs + config.epochs
    stages = [
        Stage(name=HEAD, first=0, end=config.head_epochs),
        Stage(name=FINE_TUNING, first=config.head_epochs, end=end),
    ]
    return [stage for stage in stages if stage.end > stage.first]


def prepare(classifier: Classifier, stage: Stage, config: RunConfig, *, steps_per_epoch: int) -> None:
    """Choose which layers a stage trains, and set its optimizer and loss.

    Args:
        classifier: to be trained.
        stage: the stage.
        config: the settings.
        steps_per_epoch: batches in an epoch, the unit of the schedule.
    """
    unfreeze(classifier.backbone, 0 if stage.name == HEAD else config.unfreeze_last)
    if stage.name == HEAD or config.batch_normalisation == "frozen":
        freeze_batch_normalisation(classifier.trained)
    optimizer = _optimizer(stage, config, steps_per_epoch)
    classifier.trained.compile(
        optimizer=optimizer,
        loss=make_loss(config),
        # XLA, Keras' default for TensorFlow, made a step on a processor eight times slower. JAX needs it.
        jit_compile=keras.config.backend() == "jax",
    )
    # Creates its variables, so that a checkpoint can be read into them.
    optimizer.build(classifier.trained.trainable_variables)


def unfreeze(backbone: keras.Model, last: int) -> None:
    """Make the last layers of a backbone trainable and freeze the others.

    Args:
        backbone: the first part of the classifier. The rest is not changed.
        last: how many layers. -1 means all.

    Raises:
        InputError: there are fewer layers.
    """
    if last > len(backbone.layers):
        raise InputError(
            f"--unfreeze-last {last} is too much: {backbone.name} has {len(backbone.layers)} layers. -1 means all."
        )
    frozen = 0 if last < 0 else len(backbone.layers) - last
    for number, layer in enumerate(backbone.layers):
        layer.trainable = number >= frozen


def freeze_batch_normalisation(model: keras.Model) -> None:
    """Keep batch normalisation in inference mode, with the statistics that it has."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
        elif isinstance(layer, keras.Model):
            freeze_batch_normalisation(layer)


def make_loss(config: RunConfig) -> keras.losses.Loss:
    """Focal loss with two classes, cross-entropy of smoothed labels with seven, plain cross-entropy with teachers."""
    if config.teachers:
        two = config.classes == "two"
        return keras.losses.BinaryCrossentropy() if two else keras.losses.CategoricalCrossentropy()
    if config.classes == "two":
        return keras.losses.BinaryFocalCrossentropy(
            apply_class_balancing=True, alpha=config.focal_alpha, gamma=config.focal_gamma, name="focal_loss"
        )
    return keras.losses.CategoricalCrossentropy(label_smoothing=config.label_smoothing)


def _optimizer(stage: Stage, config: RunConfig, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    rate: float | keras.optimizers.schedules.LearningRateSchedule = config.head_learning_rate
    if stage.name == FINE_TUNING:
        warmup = round(config.warmup_epochs * steps_per_epoch)
        rate = keras.optimizers.schedules.CosineDecay(
            # Without a warm-up, Keras uses the initial rate as the peak.
            initial_learning_rate=0.0 if warmup else config.learning_rate,
            warmup_target=config.learning_rate if warmup else None,
            warmup_steps=warmup,
            decay_steps=max(1, config.epochs * steps_per_epoch - warmup),
        )
    averaged = config.ema_momentum > 0
    return keras.optimizers.AdamW(
        rate,
        weight_decay=config.weight_decay,
        use_ema=averaged,
        ema_momentum=config.ema_momentum if averaged else 0.99,
    )
