"""Probabilities by a traced graph: those of the network as it is at the time, and the network is left as it was."""

from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def network(*, several_outputs: bool = False) -> Any:
    import keras

    inputs = keras.Input((8, 8, 3))
    x = keras.layers.BatchNormalization()(keras.layers.Rescaling(1 / 255)(inputs))
    features = keras.layers.GlobalAveragePooling2D()(x)
    probability = keras.layers.Dense(1, activation="sigmoid")(features)
    return keras.Model(inputs, {"probability": probability, "features": features} if several_outputs else probability)


def pictures(count: int) -> Any:
    return np.random.default_rng(3).integers(0, 256, (count, 8, 8, 3), np.uint8)


@pytest.mark.parametrize("count", [1, 16, 37])
def test_the_probabilities_are_those_of_the_network(count: int) -> None:
    from trainer.networks.predict import predict

    model = network()
    expected = np.asarray(model(pictures(count).astype(np.float32)))[:, 0]
    found = predict(model, pictures(count))
    assert found.dtype == np.float64
    assert np.allclose(found, expected, atol=1e-6)
    assert not model.compiled, "what compile sets would be saved with it"


def test_weights_are_found_again_at_every_call() -> None:
    from trainer.networks.predict import predict_by, traced

    model, images = network(), pictures(4)
    step = traced(model)
    before = predict_by(step, images)
    dense = model.layers[-1]
    dense.set_weights([2 * dense.get_weights()[0] + 1, dense.get_weights()[1]])
    after = predict_by(step, images)
    assert not np.allclose(before, after)
    assert np.allclose(after, np.asarray(model(images.astype(np.float32)))[:, 0], atol=1e-6)
    # Not in training mode, whatever was trained in the meantime.
    model.trainable = False
    assert np.allclose(predict_by(step, images), after)


def test_several_outputs_come_by_name() -> None:
    from trainer.networks.predict import traced

    found = traced(network(several_outputs=True))(pictures(3))
    assert {name: value.shape for name, value in found.items()} == {"probability": (3, 1), "features": (3, 3)}
