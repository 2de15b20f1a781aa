"""A network of seven classes that starts from a bundle of two tells melanoma from nevus as the bundle does."""

from pathlib import Path

import numpy as np
import pytest

from trainer.config import RunConfig
from trainer.errors import WeightsError
from trainer.networks.backbones.weights import IMAGENET
from trainer.networks.heads import build_classifier, build_seven_class_classifier, with_all_outputs
from trainer.training.bundle_start import MODEL_NAME, copy_bundle_weights

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

SIZE = 64
SEVEN = RunConfig(classes="seven", size=SIZE)


class Bundle:
    def __init__(self, folder: Path) -> None:
        self.folder = folder


@pytest.fixture
def two(tmp_path: Path) -> Bundle:
    network = with_all_outputs(build_classifier("efficientnet-lite0", SIZE, IMAGENET).scoring)
    network.save(tmp_path / MODEL_NAME)
    return Bundle(tmp_path)


def test_it_starts_as_the_bundle(two: Bundle) -> None:
    import keras

    seven = build_seven_class_classifier("efficientnet-lite0", SIZE, "none")
    before = seven.scoring.get_layer("logits").get_weights()[0]
    copy_bundle_weights(two, seven.scoring, SEVEN)  # type: ignore[arg-type]
    images = np.random.default_rng(1).integers(0, 256, (4, SIZE, SIZE, 3)).astype(np.float32)
    trained = keras.saving.load_model(two.folder / MODEL_NAME, compile=False)
    theirs = trained(images)["probability"].numpy()
    assert np.ptp(theirs) > 0
    assert seven.scoring(images).numpy() == pytest.approx(theirs, abs=1e-5)
    # The other diagnoses begin as any new layer does.
    after = seven.scoring.get_layer("logits").get_weights()[0]
    changed = (before != after).any(axis=0)
    assert changed.tolist() == [False, False, False, False, True, True, False]
    # What is trained shares these weights.
    classes = seven.trained(images).numpy()
    assert classes[:, 4] / (classes[:, 4] + classes[:, 5]) == pytest.approx(theirs[:, 0], abs=1e-5)


def test_a_bundle_of_seven_classes_cannot_start_a_network_of_two(tmp_path: Path) -> None:
    seven = with_all_outputs(build_seven_class_classifier("efficientnet-lite0", SIZE, "none").scoring)
    seven.save(tmp_path / MODEL_NAME)
    other = build_seven_class_classifier("efficientnet-lite0", SIZE, "none")
    copy_bundle_weights(Bundle(tmp_path), other.scoring, SEVEN)  # type: ignore[arg-type]
    own = other.scoring.get_layer("logits").get_weights()[0]
    assert np.array_equal(own, seven.get_layer("logits").get_weights()[0])
    network = build_classifier("efficientnet-lite0", SIZE, "none").scoring
    with pytest.raises(WeightsError, match="does not fit efficientnet-lite0 for two classes"):
        copy_bundle_weights(Bundle(tmp_path), network, RunConfig(size=SIZE))  # type: ignore[arg-type]
