"""Named sets of settings.

``clean`` is the default: a lesion-disjoint split with near-duplicates on one side; threshold and calibration are
chosen on validation. ``reference`` is the method that the project started from, with its random split of images and a
threshold chosen on the test split, so that their effect can be measured (`trainer.training.reference_preset`).
"""

from collections.abc import Callable
from typing import Any

from trainer.config import RunConfig
from trainer.errors import InputError

CLEAN, REFERENCE = "clean", "reference"

#: What each preset changes in the defaults of `RunConfig`.
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
        "focal_gamma": 2.0,
        "focal_alpha": 0.25,
        "split": "random-images",
        "near_duplicates": -1,
    },
}

#: Settings that have an effect only with so many classes.
_ONLY_WITH = {
    "two": ("focal_gamma", "focal_alpha", "source_balanced"),
    "seven": ("histology_nevi_share", "label_smoothing"),
}

#: Settings that another one leaves without effect: name, condition, and the other setting.
_WITHOUT_EFFECT: tuple[tuple[str, Callable[[RunConfig], bool], str], ...] = (
    ("head_learning_rate", lambda config: config.head_epochs == 0, "--head-epochs 0"),
    *(
        (name, lambda config: config.epochs == 0, "--epochs 0")
        for name in ("learning_rate", "unfreeze_last", "warmup_epochs")
    ),
    ("near_duplicates", lambda config: config.split == "random-images", "--split random-images"),
    *(
        (name, lambda config: config.classes == "two" and config.draw == "melanomas", "--draw melanomas")
        for name in ("samples_per_epoch", "sampling_power")
    ),
    ("ham10000_share", lambda config: config.draw == "melanomas", "--draw melanomas"),
    ("draw", lambda config: config.classes == "seven" and config.draw == "melanomas", "--classes seven"),
    ("source_balanced", lambda config: config.draw == "sources", "--draw sources"),
    ("histology_nevi_share", lambda config: config.draw == "sources", "--draw sources"),
)

#: Settings of the losses that learn the diagnoses.
_NOT_WITH_TEACHERS = ("focal_gamma", "focal_alpha", "label_smoothing")


def configure(preset: str, given: dict[str, Any]) -> RunConfig:
    """Settings of a run: the defaults, changed by the preset, changed by what was given.

    Without a size from the preset or the caller, the backbone's own is taken.

    Args:
        preset: key of `PRESETS`.
        given: settings that were named by the caller.

    Raises:
        InputError: the preset or a value is unknown, or a given setting would have no effect.
    """
    if preset not in PRESETS:
        raise InputError(f"There is no preset {preset!r}. Choose one of {', '.join(PRESETS)}.")
    settings = {**PRESETS[preset], **given, "preset": preset}
    config = RunConfig.make(settings)
    if "warmup_epochs" in given and 0 < config.epochs <= config.warmup_epochs:
        raise InputError(
            f"With --warmup-epochs {config.warmup_epochs:g} and --epochs {config.epochs} the learning rate never "
            "reaches its peak. Give fewer epochs of warm-up than of fine-tuning."
        )
    # Patience ends the last stage.
    name = "epochs" if config.epochs else "head_epochs"
    if "patience" in given and getattr(config, name) <= config.patience:
        raise InputError(
            f"--patience {config.patience} never ends a training of {getattr(config, name)} epochs. Give a smaller one."
        )
    if config.weights_sha256 and config.weights in ("imagenet", "none"):
        raise InputError(
            "--weights-sha256 belongs to a weights file, but --weights is "
            f"{config.weights}. Give the file or leave out the hash."
        )
    for name, is_idle, other in _WITHOUT_EFFECT:
        if name in given and is_idle(config):
            raise InputError(f"{_option(name)} has no effect with {other}. Leave one of them out.")
    if config.teachers and (idle := [_option(name) for name in _NOT_WITH_TEACHERS if name in given]):
        raise InputError(
            f"{', '.join(idle)} has no effect with --teachers, whose loss "
            "is plain cross-entropy. Leave one of them out."
        )
    for classes, names in _ONLY_WITH.items():
        if config.classes != classes and (idle := [_option(name) for name in names if name in given]):
            raise InputError(
                f"{', '.join(idle)} has no effect with --classes "
                f"{config.classes}. Add --classes {classes}, or leave it out."
            )
    if "size" not in settings and "backbone" in settings:
        # Last, because it loads TensorFlow.
        from trainer.networks.backbones import registered

        return config.model_copy(update={"size": registered(config.backbone).size})
    return config


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
