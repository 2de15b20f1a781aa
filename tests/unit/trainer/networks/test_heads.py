"""The head on the backbone, the outputs of the bundle, and frozen batch normalisation."""

from typing import Any

import numpy as np
import pytest

SIZE = 64


@pytest.fixture
def classifier() -> Any:
    # Here and not above: importing TensorFlow takes ten seconds, which only who runs these tests should wait for.
    from trainer.networks.heads import build_classifier

    return build_classifier("efficientnet-lite0", SIZE).scoring


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(2).uniform(0, 255, (3, SIZE, SIZE, 3)).astype(np.float32)


def test_the_head_is_the_references(classifier: Any) -> None:
    pooling, hidden, dropout, probability = classifier.layers[-4:]
    assert type(pooling).__name__ == "GlobalAveragePooling2D"
    assert pooling.input is classifier.get_layer("head_relu").output
    assert (type(hidden).__name__, hidden.units, hidden.activation.__name__) == ("Dense", 128, "relu")
    assert (type(dropout).__name__, dropout.rate) == ("Dropout", 0.5)
    assert (type(probability).__name__, probability.units, probability.activation.__name__) == ("Dense", 1, "sigmoid")
    assert hidden.input is pooling.output
    assert dropout.input is hidden.output
    assert probability.input is dropout.output
    # 1280 x 128 + 128 + 128 + 1: nothing between them.
    assert sum(layer.count_params() for layer in (pooling, hidden, dropout, probability)) == 164_097


def test_the_outputs_of_the_bundle_belong_together(classifier: Any, images: np.ndarray) -> None:
    from trainer.networks.heads import OUTPUTS, with_all_outputs

    found = {name: np.asarray(value) for name, value in with_all_outputs(classifier)(images, training=False).items()}
    assert OUTPUTS == ("probability", "features", "feature_map")
    assert set(found) == set(OUTPUTS)
    assert found["probability"].shape == (3, 1)
    assert found["feature_map"].shape == (3, SIZE // 32, SIZE // 32, 1280)
    assert np.allclose(found["features"], found["feature_map"].mean(axis=(1, 2)), atol=1e-5)
    assert np.allclose(found["probability"], np.asarray(classifier(images, training=False)), atol=1e-6)
    assert ((found["probability"] > 0) & (found["probability"] < 1)).all()


def test_frozen_batch_normalisation_keeps_its_statistics_while_the_rest_trains(
    classifier: Any, images: np.ndarray
) -> None:
    import keras

    from trainer.training.stages import freeze_batch_normalisation

    freeze_batch_normalisation(classifier)
    frozen = [layer for layer in classifier.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(frozen) == 49
    assert all(not layer.trainable_weights for layer in frozen)
    assert classifier.get_layer("stem_conv").trainable_weights
    assert classifier.get_layer("hidden").trainable_weights

    stem = classifier.get_layer("stem_bn")
    before = [weight.copy() for weight in stem.get_weights()]
    classifier(images, training=True)
    assert all(np.array_equal(old, new) for old, new in zip(before, stem.get_weights(), strict=True))


def test_without_freezing_the_statistics_would_move(classifier: Any, images: np.ndarray) -> None:
    """What the test above would miss if calling the network in training never moved them."""
    stem = classifier.get_layer("stem_bn")
    before = [weight.copy() for weight in stem.get_weights()]
    classifier(images, training=True)
    assert not all(np.array_equal(old, new) for old, new in zip(before, stem.get_weights(), strict=True))


def test_seven_classes_are_read_as_melanoma_against_nevus(images: np.ndarray) -> None:
    from trainer.data.diagnoses import DIAGNOSES
    from trainer.networks.heads import build_seven_class_classifier, with_all_outputs

    classifier = build_seven_class_classifier("efficientnet-lite0", SIZE)
    classes = np.asarray(classifier.trained(images))
    assert classes.shape == (3, 7)
    assert classes.sum(axis=1) == pytest.approx(1, abs=1e-5)
    melanoma, nevus = classes[:, DIAGNOSES.index("mel")], classes[:, DIAGNOSES.index("nv")]
    expected = melanoma / (melanoma + nevus)
    outputs = with_all_outputs(classifier.scoring)(images)
    assert np.asarray(outputs["probability"])[:, 0] == pytest.approx(expected, abs=1e-5)
    # The two fixed weights are not for the optimizer.
    assert "probability" not in {weight.path.split("/")[-2] for weight in classifier.trained.trainable_weights}
