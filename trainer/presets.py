"""Named sets of settings.

``clean`` is the default: lesion-disjoint split with near-duplicates on one side, threshold and calibration chosen on
validation. ``reference`` follows the brief that the project started from, its random image split and its threshold
chosen on the test split included, so that what they inflate is a figure (`trainer.training.reference_preset`).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from trainer.config import FitConfig

CLEAN, REFERENCE = "clean", "reference"

#: What each preset changes in the defaults of `FitConfig`.
PRESETS: dict[str, dict[str, Any]] = {
    CLEAN: {},
    REFERENCE: {
        "backbone": "resnet50",
        "head_epochs": 5,
        "head_learning_rate": 1e-3,
        "epochs": 20,
        "unfreeze_last": 30,
        "learning_rate": 1e-4,
        "warmup_epochs": 0.0,
        "weight_decay": 0.0,
        "ema_momentum": 0.0,
        "gamma": 2.0,
        "alpha": 0.25,
        "split": "random-images",
        "near_duplicates": -1,
    },
}

#: Settings that only the training of so many classes looks at.
_ONLY_WITH = {
    "two": ("gamma", "alpha", "source_balanced"),
    "seven": ("draws", "sampling_power", "proven_nevi", "label_smoothing"),
}

#: Settings that others leave without effect: when, and the words for it.
_WITHOUT_EFFECT: tuple[tuple[str, Callable[[FitConfig], bool], str], ...] = (
    ("head_learning_rate", lambda config: config.head_epochs == 0, "head_epochs=0"),
    *(
        (name, lambda config: config.epochs == 0, "epochs=0")
        for name in ("learning_rate", "unfreeze_last", "warmup_epochs")
    ),
    ("near_duplicates", lambda config: config.split == "random-images", "split='random-images'"),
)

#: Settings of the losses by the diagnoses.
_NOT_WITH_TEACHERS = ("gamma", "alpha", "label_smoothing")


def configure(preset: str, given: dict[str, Any]) -> FitConfig:
    """Settings of a run: the defaults, over them the preset's, over them what was given.

    Without a size from preset or caller the backbone's own is taken.

    Args:
        preset: key of `PRESETS`.
        given: settings that were asked for by name.

    Raises:
        ValueError: the preset or a value is not known, or a setting was given that would have no effect.
    """
    if preset not in PRESETS:
        raise ValueError(f"Received: preset {preset!r}. Expected: one of {', '.join(PRESETS)}.")
    settings = {**PRESETS[preset], **given, "preset": preset}
    config = FitConfig(**settings)
    if "warmup_epochs" in given and 0 < config.epochs <= config.warmup_epochs:
        raise ValueError(
            f"Received: warmup_epochs={config.warmup_epochs:g} with epochs={config.epochs}, so that the learning rate "
            "would never reach its peak. Expected: fewer epochs of warm-up than of fine-tuning."
        )
    # It ends the last stage.
    name = "epochs" if config.epochs else "head_epochs"
    if "patience" in given and getattr(config, name) <= config.patience:
        raise ValueError(
            f"Received: patience={config.patience} with {name}={getattr(config, name)}, so that it could never end a "
            f"training. Expected: less patience than {name}."
        )
    if config.weights_sha256 and config.weights in ("imagenet", "none"):
        raise ValueError(
            f"Received: weights_sha256 with weights={config.weights!r}, which is no file that it could be the hash of. "
            "Expected: the path of a weights file with it, or leave it out."
        )
    for name, idle_when, why in _WITHOUT_EFFECT:
        if name in given and idle_when(config):
            raise ValueError(
                f"Received: {name} with {why}, which does not look at it. Expected: one without the other."
            )
    if config.teachers and (idle := [name for name in _NOT_WITH_TEACHERS if name in given]):
        raise ValueError(
            f"Received: {', '.join(idle)} with teachers, by whose labels the loss is plain cross-entropy. Expected: "
            "teachers without it, or it without teachers."
        )
    for classes, names in _ONLY_WITH.items():
        if config.classes != classes and (idle := [name for name in names if name in given]):
            raise ValueError(
                f"Received: {', '.join(idle)} with classes={config.classes!r}, which does not look at it. Expected: "
                f"classes={classes!r}, or leave it out."
            )
    if "size" not in settings and "backbone" in settings:
        # Last, for it loads TensorFlow.
        from trainer.networks.backbones import registered

        return replace(config, size=registered(config.backbone).size)
    return config
