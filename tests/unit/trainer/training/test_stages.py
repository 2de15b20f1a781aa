"""What is trained in each stage, and by which rate."""

from typing import Any

import numpy as np
import pytest

from tests.unit.trainer.synthetic_run import changed
from trainer.config import RunConfig

TWO_STAGES = RunConfig(head_epochs=2, epochs=3, unfreeze_last=30, learning_rate=1e-3, warmup_epochs=1.0)


@pytest.fixture
def classifier() -> Any:
    # Here and not above: importing TensorFlow takes ten seconds, which only who runs these tests should wait for.
    from trainer.networks.heads import build_classifier

    return build_classifier("efficientnet-lite0", 64, "none")


def trained_layers(classifier: Any) -> set[str]:
    return {weight.path.split("/")[0] for weight in classifier.trained.trainable_weights}


def with_weights(layers: list[Any]) -> set[str]:
    return {layer.name for layer in layers if layer.weights}


def test_without_head_epochs_there_is_one_stage() -> None:
    from trainer.training.stages import stages_of

    assert [(stage.name, stage.first, stage.end) for stage in stages_of(RunConfig(epochs=3))] == [("fine-tuning", 0, 3)]
    assert [(stage.name, stage.first, stage.end) for stage in stages_of(TWO_STAGES)] == [
        ("head", 0, 2),
        ("fine-tuning", 2, 5),
    ]


def test_first_the_head_then_the_last_layers_of_the_backbone(classifier: Any) -> None:
    from trainer.training.stages import prepare, stages_of

    head, fine_tuning = stages_of(TWO_STAGES)
    prepare(classifier, head, TWO_STAGES, steps_per_epoch=10)
    assert trained_layers(classifier) == {"hidden", "probability"}

    prepare(classifier, fine_tuning, TWO_STAGES, steps_per_epoch=10)
    last = with_weights(classifier.backbone.layers[-30:])
    convolutions = {name for name in last if not name.endswith("_bn")}
    assert trained_layers(classifier) == convolutions | {"hidden", "probability"}
    assert len(convolutions) < len(last), "batch normalisation is among the last layers and stays frozen"

    everything = changed(TWO_STAGES, unfreeze_last=-1)
    prepare(classifier, fine_tuning, everything, steps_per_epoch=10)
    assert "stem_conv" in trained_layers(classifier)
    assert not any(name.endswith("_bn") for name in trained_layers(classifier))


def test_more_layers_than_there_are_cannot_be_unfrozen(classifier: Any) -> None:
    from trainer.training.stages import unfreeze

    layers = len(classifier.backbone.layers)
    with pytest.raises(
        ValueError, match=rf"--unfreeze-last {layers + 1} is too much: efficientnet-lite0 has {layers} layers"
    ):
        unfreeze(classifier.backbone, layers + 1)


def test_batch_normalisation_keeps_its_statistics_in_both_stages(classifier: Any) -> None:
    import keras

    from trainer.training.stages import prepare, stages_of

    layers = [layer for layer in classifier.trained.layers if isinstance(layer, keras.layers.BatchNormalization)]
    before = [layer.get_weights() for layer in layers]
    images = np.random.default_rng(0).uniform(0, 255, (4, 64, 64, 3)).astype(np.float32)
    config = changed(TWO_STAGES, warmup_epochs=0.0)
    for stage in stages_of(config):
        prepare(classifier, stage, config, steps_per_epoch=1)
        hidden = classifier.trained.get_layer("hidden").get_weights()[0]
        classifier.trained.train_on_batch(images, np.array([[1], [0], [1], [0]], np.float32))
        assert not np.array_equal(hidden, classifier.trained.get_layer("hidden").get_weights()[0]), (
            "nothing was trained"
        )
    for layer, old in zip(layers, before, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(old, layer.get_weights(), strict=True))


def test_batch_normalisation_inside_a_nested_model_is_frozen_too() -> None:
    import keras

    from trainer.training.stages import freeze_batch_normalisation

    inner = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization(), keras.layers.Dense(2)])
    outer = keras.Sequential([keras.Input((4,)), inner])
    freeze_batch_normalisation(outer)
    assert len(outer.trainable_weights) == 2


def test_the_rate_is_constant_for_the_head_and_then_rises_and_falls(classifier: Any) -> None:
    from trainer.training.stages import prepare, stages_of

    head, fine_tuning = stages_of(TWO_STAGES)
    prepare(classifier, head, TWO_STAGES, steps_per_epoch=10)
    assert float(classifier.trained.optimizer.learning_rate) == pytest.approx(TWO_STAGES.head_learning_rate)

    def rates(config: RunConfig) -> list[float]:
        prepare(classifier, fine_tuning, config, steps_per_epoch=10)
        optimizer, found = classifier.trained.optimizer, []
        for step in (0, 5, 10, 20, 30):
            optimizer.iterations.assign(step)
            found.append(float(optimizer.learning_rate))
        return found

    # Ten steps up, twenty down along a cosine: half way at the half.
    assert rates(TWO_STAGES) == pytest.approx([0, 5e-4, 1e-3, 5e-4, 0], abs=1e-8)
    # cos(pi/3) = 1/2: after a third three quarters are left.
    assert rates(changed(TWO_STAGES, warmup_epochs=0.0))[2] == pytest.approx(7.5e-4, abs=1e-8)


def test_the_moving_average_is_optional(classifier: Any) -> None:
    from trainer.training.stages import prepare, stages_of

    stage = stages_of(TWO_STAGES)[-1]
    prepare(classifier, stage, TWO_STAGES, steps_per_epoch=1)
    assert (classifier.trained.optimizer.use_ema, classifier.trained.optimizer.ema_momentum) == (True, 0.99)
    prepare(classifier, stage, changed(TWO_STAGES, ema_momentum=0.0), steps_per_epoch=1)
    assert not classifier.trained.optimizer.use_ema


def test_resnets_last_thirty_layers_are_its_last_three_blocks() -> None:
    """The reference: from the last block of the fourth stage's end on."""
    from trainer.networks.backbones import build_backbone
    from trainer.training.stages import unfreeze

    backbone = build_backbone("resnet50", 64, "none")
    unfreeze(backbone, 30)
    trained = [layer.name for layer in backbone.layers if layer.trainable]
    assert len(trained) == 30
    assert trained[-1] == "conv5_block3_out"
    assert {name.split("_")[1] for name in trained} == {"block1", "block2", "block3"}
    assert all(name.startswith("conv5") for name in trained)
