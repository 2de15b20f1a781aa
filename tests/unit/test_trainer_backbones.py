"""The registry of backbones, and the port of EfficientNet-Lite0's weights to Keras."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.datasets

from worker.images.decode import decode
from worker.images.preprocess import Preprocessing

#: scikit-learn ships two photographs.
PHOTOGRAPHS = Path(sklearn.datasets.__file__).parent / "images"


@pytest.fixture(scope="module")
def imagenet() -> Any:
    # Here and not above: importing TensorFlow takes ten seconds, which only who runs these tests should wait for.
    from trainer.backbones.efficientnet_lite import build_lite0_imagenet_classifier

    return build_lite0_imagenet_classifier(224)


@pytest.mark.parametrize(
    ("photograph", "number"), [pytest.param("china.jpg", 698, id="palace"), pytest.param("flower.jpg", 985, id="daisy")]
)
def test_the_ported_network_still_names_photographs(imagenet: Any, photograph: str, number: int) -> None:
    image = Preprocessing(size=224)(decode((PHOTOGRAPHS / photograph).read_bytes()))
    logits = np.asarray(imagenet(image[None].astype(np.float32), training=False))
    assert logits.shape == (1, 1000)
    assert logits[0].argmax() == number


def test_the_feature_map_has_a_32nd_of_the_inputs_side_and_stays_within_relu6() -> None:
    from trainer.backbones import build_backbone

    backbone = build_backbone("efficientnet-lite0", 96)
    noise = np.random.default_rng(0).uniform(0, 255, (2, 96, 96, 3)).astype(np.float32)
    features = np.asarray(backbone(noise, training=False))
    assert features.shape == (2, 3, 3, 1280)
    assert features.min() >= 0
    assert features.max() <= 6
    assert features.std() > 0.01


def test_8_bit_input_is_scaled_inside_the_network() -> None:
    from trainer.backbones import build_backbone

    backbone = build_backbone("efficientnet-lite0", 64)
    image = np.random.default_rng(1).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    whole = np.asarray(backbone(image, training=False))
    assert np.allclose(whole, np.asarray(backbone(image.astype(np.float32), training=False)))
    # (value - 127) / 128, as published.
    scaled = np.asarray(backbone.get_layer("scale")(np.array([[[[0, 127, 255]]]], np.float32)))
    assert scaled.ravel().tolist() == [-127 / 128, 0, 1]


def test_an_unknown_backbone_is_refused_with_the_known_ones() -> None:
    from trainer.backbones import BACKBONES, build_backbone

    with pytest.raises(ValueError, match="backbone 'resnet-9000'") as caught:
        build_backbone("resnet-9000", 224)
    assert all(name in str(caught.value) for name in BACKBONES)
