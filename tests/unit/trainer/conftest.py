"""A synthetic data set, and a network of three numbers in place of the real one."""

from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.synthetic_ham10000 import write_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten melanomas of one image each and ten nevi of two."""
    root = tmp_path_factory.mktemp("HAM10000")
    return write_dataset(root, melanomas=10, nevi=10, images=2)


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The networks that runs of this test build: the mean colour, then one sigmoid."""
    # Here and not above: importing TensorFlow takes ten seconds, which only who runs these tests should wait for.
    import keras

    import trainer.training.fit
    from trainer.networks.heads import Classifier

    built: list[Any] = []

    def build(backbone: str, size: int, weights: str, weights_sha256: str) -> Any:
        inputs = keras.Input((size, size, 3))
        x = keras.layers.Rescaling(1 / 255)(inputs)
        x = keras.layers.BatchNormalization()(x)
        base = keras.Model(inputs, x)
        x = keras.layers.Dropout(0.2)(keras.layers.GlobalAveragePooling2D()(x))
        model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(x), name=backbone)
        built.append(model)
        return Classifier(trained=model, scoring=keras.Model(inputs, model.output), backbone=base)

    monkeypatch.setattr(trainer.training.fit, "build_classifier", build)
    return built
