"""The fused operation against Keras' own: same outputs, gradients and moving statistics, and nothing stays behind."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from trainer.training.fused_batch_normalisation import fused_batch_normalisation

if keras.backend.backend() != "tensorflow":
    pytest.skip("the fused operation is TensorFlow's", allow_module_level=True)


#: Keras copies its own variables in a way that NumPy is about to forbid.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def network() -> keras.Model:
    keras.utils.set_random_seed(3)
    inner = keras.Sequential([layers.Input((6, 6, 4)), layers.Conv2D(5, 3), layers.BatchNormalization(momentum=0.8)])
    return keras.Sequential(
        [
            layers.Input((8, 8, 3)),
            layers.Conv2D(4, 3),
            layers.BatchNormalization(),
            inner,
            layers.Flatten(),
            layers.Dense(1),
        ]
    )


def trained(*, fused: bool) -> keras.Model:
    model = network()
    rng = np.random.default_rng(1)
    images, targets = rng.normal(2, 3, (32, 8, 8, 3)).astype(np.float32), rng.normal(size=(32, 1)).astype(np.float32)

    def train() -> None:
        model.compile(optimizer=keras.optimizers.SGD(0.05), loss="mse", jit_compile=False)
        model.fit(images, targets, batch_size=16, epochs=3, shuffle=False, verbose=0)

    if fused:
        with fused_batch_normalisation(model):
            train()
    else:
        train()
    return model


def test_it_trains_as_keras_does(tmp_path: Path) -> None:
    plain, fused = trained(fused=False), trained(fused=True)
    for variable, one, other in zip(plain.weights, plain.get_weights(), fused.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-4, err_msg=variable.path)
    # The weights file is one that the plain model reads, by name.
    fused.save_weights(tmp_path / "fused.weights.h5")
    again = network()
    again.load_weights(tmp_path / "fused.weights.h5")
    images = np.random.default_rng(2).normal(size=(4, 8, 8, 3)).astype(np.float32)
    np.testing.assert_array_equal(again(images).numpy(), fused(images).numpy())


def test_nothing_stays_behind() -> None:
    model = network()
    normalisations = (model.layers[1], model.layers[2].layers[1])
    with fused_batch_normalisation(model):
        assert all("call" in vars(layer) for layer in normalisations)
    assert not any("call" in vars(layer) for layer in normalisations)


def test_a_frozen_layer_keeps_its_statistics() -> None:
    model = network()
    model.layers[1].trainable = False
    before = model.layers[1].get_weights()[2]
    with fused_batch_normalisation(model):
        model(np.ones((2, 8, 8, 3), np.float32), training=True)
    np.testing.assert_array_equal(model.layers[1].get_weights()[2], before)
