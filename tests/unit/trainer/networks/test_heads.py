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


@pytest.mark.parametrize("classes", ["two", "seven"])
def test_evidence_in_closed_form_is_grad_cam_and_changes_with_the_weights(images: np.ndarray, classes: str) -> None:
    import keras
    import tensorflow as tf

    from trainer.data.diagnoses import DIAGNOSES
    from trainer.networks.heads import build_classifier, build_seven_class_classifier, head_of, with_all_outputs

    build = build_classifier if classes == "two" else build_seven_class_classifier
    model = with_all_outputs(build("efficientnet-lite0", SIZE).scoring)
    # Weights by chance, of which those of the last layer speak for melanoma.
    rng = np.random.default_rng(3)
    hidden, last = model.get_layer("hidden"), model.get_layer("probability" if classes == "two" else "logits")
    for layer in (hidden, last):
        layer.set_weights([rng.normal(0, 0.1, part.shape) for part in layer.get_weights()])
    column = 0 if classes == "two" else DIAGNOSES.index("mel")
    kernel, *rest = last.get_weights()
    # Small, so that no probability is rounded to 1.
    kernel[:, column] = np.abs(kernel[:, column]) / 30
    last.set_weights([kernel, *rest])
    found = {name: np.asarray(value) for name, value in model(images, training=False).items()}
    behind = keras.Model(model.get_layer("features").input, model.output["probability"])
    feature_map = tf.constant(found["feature_map"])
    with tf.GradientTape() as tape:
        tape.watch(feature_map)
        probability = behind(feature_map, training=False)
        logit = tf.math.log(probability) - tf.math.log1p(-probability)
    gradient = tape.gradient(logit, feature_map).numpy()
    # Selvaraju et al.: the map weighed by the gradient's mean over all places, and what is negative left out.
    expected = np.maximum((found["feature_map"] * gradient.sum(axis=(1, 2), keepdims=True)).sum(axis=-1), 0)
    evidence = np.stack(
        [head_of(model).evidence(*each) for each in zip(found["features"], found["feature_map"], strict=True)]
    )
    assert expected.max() > 0
    assert evidence == pytest.approx(expected, rel=1e-3, abs=1e-4)
    # With other weights behind the pooling it is another map: it shows the network, not only the picture.
    hidden.set_weights([rng.permutation(part.ravel()).reshape(part.shape) for part in hidden.get_weights()])
    other = np.stack(
        [head_of(model).evidence(*each) for each in zip(found["features"], found["feature_map"], strict=True)]
    )
    assert not np.allclose(other, evidence, rtol=0.1, atol=0.1 * evidence.max())


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
