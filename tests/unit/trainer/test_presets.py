"""Settings: presets, what overrides them, and what older runs recorded."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from trainer.config import RENAMED_SETTINGS, RunConfig
from trainer.errors import InputError
from trainer.presets import PRESETS, configure


def test_clean_is_the_default_and_changes_nothing() -> None:
    assert configure("clean", {}) == RunConfig()
    assert RunConfig().preset == "clean"
    assert (RunConfig().split, RunConfig().near_duplicates) == ("lesion-disjoint", 10)


def test_the_shipped_models_recipe_keeps_its_meaning() -> None:
    """Bundle 1 was trained with these defaults."""
    config = RunConfig()
    assert (config.backbone, config.size, config.epochs, config.batch_size) == ("efficientnet-lite0", 224, 30, 32)
    assert (config.learning_rate, config.warmup_epochs, config.weight_decay) == (5e-4, 2.0, 1e-2)
    assert (config.ema_momentum, config.focal_gamma, config.focal_alpha, config.split_seed) == (0.99, 2.0, 0.25, 20181)
    assert (config.head_epochs, config.unfreeze_last, config.weights) == (0, -1, "imagenet")


def test_the_reference_follows_the_brief() -> None:
    config = configure("reference", {})
    assert (config.backbone, config.weights, config.unfreeze_last) == ("resnet50", "imagenet", 30)
    assert (config.focal_gamma, config.focal_alpha) == (2.0, 0.25)
    assert config.head_epochs > 0
    assert config.split == "random-images"
    assert config.preset == "reference"


def test_what_is_given_overrides_the_preset() -> None:
    config = configure("reference", {"backbone": "efficientnet-lite0", "epochs": 3})
    assert (config.backbone, config.epochs, config.unfreeze_last) == ("efficientnet-lite0", 3, 30)
    assert config.size == 224


def test_a_backbone_brings_its_own_size_unless_one_is_given() -> None:
    assert configure("clean", {"backbone": "efficientnet-lite2"}).size == 260
    assert configure("clean", {"backbone": "efficientnet-lite2", "size": 224}).size == 224
    assert configure("reference", {"backbone": "efficientnetv2-s"}).size == 384


def test_presets_name_settings_that_exist() -> None:
    for name, values in PRESETS.items():
        assert set(values) <= set(vars(RunConfig())), name


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"preset 'brief'\. Choose one of clean, reference"):
        configure("brief", {})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"classes": "three"}, "--classes 'three' is wrong: input should be 'two' or 'seven'"),
        ({"split": "random"}, "--split 'random' is wrong"),
        ({"split": "random-images", "classes": "seven"}, "--split random-images needs --classes two"),
        ({"epochs": -1}, "--epochs -1 is wrong"),
        ({"epochs": 0}, "Train for at least one epoch"),
        ({"unfreeze_last": -2}, "--unfreeze-last -2 is wrong"),
        ({"ema_momentum": 1.0}, "--ema-momentum 1.0 is wrong"),
        ({"classes": "two", "mixup": 0.2}, "--mixup 0.2 needs --classes seven"),
        ({"classes": "seven", "mixup": -0.2}, "--mixup -0.2 is wrong"),
        ({"learning_rate": 5.0}, "--learning-rate 5.0 is wrong: input should be less than or equal to 1"),
        ({"learning_rate": 0.0}, "--learning-rate 0.0 is wrong: input should be greater than 0"),
        ({"head_learning_rate": -1e-3}, "--head-learning-rate -0.001 is wrong"),
        ({"learning_rate": math.nan}, "--learning-rate nan is wrong"),
        ({"warmup_epochs": -1.0}, "--warmup-epochs -1.0 is wrong"),
        ({"warmup_epochs": math.inf}, "--warmup-epochs inf is wrong"),
        ({"weight_decay": -0.01}, "--weight-decay -0.01 is wrong"),
        ({"focal_gamma": -1.0}, "--focal-gamma -1.0 is wrong"),
        ({"focal_alpha": 1.0}, "--focal-alpha 1.0 is wrong: input should be less than 1"),
        ({"label_smoothing": 1.0}, "--label-smoothing 1.0 is wrong"),
        ({"batch_size": 0}, "--batch-size 0 is wrong: input should be greater than or equal to 1"),
        ({"batch_size": 7}, "--batch-size 7 is odd"),
        ({"samples_per_epoch": 3, "classes": "seven"}, "--samples-per-epoch 3 is wrong"),
        ({"seed": -1}, "--seed -1 is wrong"),
        ({"split_seed": 2**32}, "--split-seed 4294967296 is wrong"),
        ({"size": 3}, "--size 3 is wrong: input should be greater than or equal to 32"),
    ],
)
def test_settings_that_mean_nothing_are_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(InputError) as caught:
        RunConfig.make(values)
    assert words in str(caught.value)


def test_a_warm_up_that_takes_the_whole_training_is_refused() -> None:
    with pytest.raises(ValueError, match="--warmup-epochs 50 and --epochs 30"):
        configure("clean", {"warmup_epochs": 50.0})
    # One that nobody asked for is as it was.
    assert configure("clean", {"epochs": 1}).warmup_epochs == 2


@pytest.mark.parametrize(
    "name", [name for name, field in RunConfig.model_fields.items() if type(field.default) in (int, float)]
)
def test_every_number_has_a_range(name: str) -> None:
    with pytest.raises(InputError, match=f"--{name.replace('_', '-')} -9.* is wrong"):
        RunConfig.make({name: type(getattr(RunConfig(), name))(-9)})


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({"size": 16}, "size: Input should be greater than or equal to 32"),
        ({"gamma": 2.0}, "gamma is now called focal_gamma"),
        ({"share_of_two": 0.5}, "share_of_two: Extra inputs are not permitted"),
    ],
)
def test_a_run_of_another_version_is_named_with_what_to_do(tmp_path: Path, content: dict[str, Any], why: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"{re.escape(str(tmp_path))} .*{why}.* Use that version, or train again"):
        RunConfig.read(tmp_path)


@pytest.mark.parametrize("old", RENAMED_SETTINGS)
def test_a_renamed_setting_is_refused_with_its_new_name(old: str) -> None:
    with pytest.raises(InputError, match=f"the setting {old} is now called {RENAMED_SETTINGS[old]}"):
        RunConfig.make({old: 1})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"classes": "seven", "focal_gamma": 1.0}, "--focal-gamma has no effect with --classes seven"),
        (
            {"samples_per_epoch": 100, "label_smoothing": 0.1},
            "--samples-per-epoch has no effect with --draw melanomas",
        ),
        (
            {"classes": "seven", "teachers": ("run",), "label_smoothing": 0.1},
            "--label-smoothing has no effect with --teachers",
        ),
        ({"teachers": ("run",), "focal_gamma": 1.0}, "--focal-gamma has no effect with --teachers"),
        ({"teachers": ("run",), "label_smoothing": 0.1}, "--label-smoothing has no effect with --teachers"),
        ({"mixup": 0.3}, "--mixup 0.3 needs --classes seven"),
        ({"patience": 4, "epochs": 4}, "--patience 4 never ends a training of 4 epochs"),
        ({"patience": 9, "head_epochs": 3, "epochs": 0}, "--patience 9 never ends a training of 3 epochs"),
    ],
)
def test_a_setting_without_effect_is_refused(given: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        configure("clean", given)


def test_differences_name_each_setting_with_both_values() -> None:
    assert RunConfig(seed=1, epochs=3).differences(RunConfig(seed=2, epochs=3)) == {"seed": (1, 2)}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"head_learning_rate": 0.01}, "--head-learning-rate has no effect"),
        ({"head_epochs": 2, "epochs": 0, "unfreeze_last": 30}, "--unfreeze-last has no effect"),
        ({"split": "random-images", "near_duplicates": 5}, "--near-duplicates has no effect"),
        ({"weights_sha256": "0" * 64}, "--weights-sha256 belongs to a weights file, but --weights is imagenet"),
        (
            {"weights": "none", "weights_sha256": "0" * 64},
            "--weights-sha256 belongs to a weights file, but --weights is none",
        ),
        ({"near_duplicates": 65}, "--near-duplicates 65 is wrong: input should be less than or equal to 64"),
    ],
)
def test_a_setting_without_effect_or_beyond_its_range_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        configure("clean", given)


def test_patience_holds_for_a_training_of_the_head_alone() -> None:
    assert configure("clean", {"head_epochs": 5, "epochs": 0, "patience": 2}).patience == 2
