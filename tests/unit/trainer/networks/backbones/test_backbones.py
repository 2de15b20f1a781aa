"""The registry of backbones, and the port of EfficientNet-Lite0's weights to Keras."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.datasets

from worker.images.decode import decode
from worker.images.preprocess import Preprocessing

# Keras saves weights with `np.array(variable)`; TensorFlow's variables do not know the argument NumPy 2 then passes.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

#: scikit-learn ships two photographs.
PHOTOGRAPHS = Path(sklearn.datasets.__file__).parent / "images"


@pytest.fixture(scope="module")
def imagenet() -> Any:
    # Here and not above: importing TensorFlow takes ten seconds, which only who runs these tests should wait for.
    from trainer.networks.backbones.efficientnet_lite import LITE0, LITE2, build_imagenet_classifier

    return {"lite0": build_imagenet_classifier(LITE0, 224), "lite2": build_imagenet_classifier(LITE2, 260)}


@pytest.mark.parametrize(
    ("network", "size", "photograph", "number"),
    [
        pytest.param("lite0", 224, "china.jpg", 698, id="palace"),
        pytest.param("lite0", 224, "flower.jpg", 985, id="daisy"),
        pytest.param("lite2", 260, "china.jpg", 698, id="palace, Lite2"),
        # A dahlia, of which there is no class: its petals pass for cells, and bees come next.
        pytest.param("lite2", 260, "flower.jpg", 599, id="honeycomb, Lite2"),
    ],
)
def test_the_ported_network_still_names_photographs(
    imagenet: Any, network: str, size: int, photograph: str, number: int
) -> None:
    image = Preprocessing(size=size)(decode((PHOTOGRAPHS / photograph).read_bytes()))
    logits = np.asarray(imagenet[network](image[None].astype(np.float32), training=False))
    assert logits.shape == (1, 1000)
    assert logits[0].argmax() == number


def test_the_feature_map_has_a_32nd_of_the_inputs_side_and_stays_within_relu6() -> None:
    from trainer.networks.backbones import build_backbone

    backbone = build_backbone("efficientnet-lite0", 96)
    noise = np.random.default_rng(0).uniform(0, 255, (2, 96, 96, 3)).astype(np.float32)
    features = np.asarray(backbone(noise, training=False))
    assert features.shape == (2, 3, 3, 1280)
    assert features.min() >= 0
    assert features.max() <= 6
    assert features.std() > 0.01


def test_8_bit_input_is_scaled_inside_the_network() -> None:
    from trainer.networks.backbones import build_backbone

    backbone = build_backbone("efficientnet-lite0", 64)
    image = np.random.default_rng(1).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    whole = np.asarray(backbone(image, training=False))
    assert np.allclose(whole, np.asarray(backbone(image.astype(np.float32), training=False)))
    # (value - 127) / 128, as published.
    scaled = np.asarray(backbone.get_layer("scale")(np.array([[[[0, 127, 255]]]], np.float32)))
    assert scaled.ravel().tolist() == [-127 / 128, 0, 1]


#: One of each family, small: the others differ in numbers only.
FAMILIES = {
    "efficientnet-lite2": (2, 1280),
    "resnet50": (2, 2048),
    "efficientnetv2-b0": (2, 1280),
    "convnext-tiny": (2, 768),
    "vit-ti16": (4, 192),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_travels_without_code_of_ours(name: str) -> None:
    """Keras alone can build it again from its description: no Lambda, no class that a bundle would have to carry."""
    import keras

    from trainer.networks.backbones import build_backbone

    model = build_backbone(name, 64, "none")
    side, channels = FAMILIES[name]
    assert model.input.shape == (None, 64, 64, 3)
    assert model.output.shape == (None, side, side, channels)
    back = keras.models.model_from_json(model.to_json())
    assert [weight.shape for weight in back.weights] == [weight.shape for weight in model.weights]
    assert all(type(layer).__module__.startswith("keras.") for layer in model.layers)
    assert not any(type(layer).__name__ == "Lambda" for layer in model.layers)


def test_every_backbone_says_where_its_weights_come_from() -> None:
    from trainer.networks.backbones import BACKBONES

    assert {"resnet50", "resnet101", "resnet152", "efficientnet-lite0", "efficientnet-lite2"} <= set(BACKBONES)
    for name, backbone in BACKBONES.items():
        assert backbone.weights_from, name
        official = backbone.source.official
        if official is not None:
            assert official.url.startswith("https://")
            assert official.url.endswith(official.name)
            assert "notop" in official.name
            assert len(official.digest) in (32, 64)
    # What Keras itself builds belongs to the address: b3 to b3, small to small.
    assert BACKBONES["efficientnetv2-b3"].source.official.name == "efficientnetv2-b3_notop.h5"
    assert BACKBONES["convnext-small"].source.official.name == "convnext_small_notop.h5"
    assert BACKBONES["efficientnet-lite2"].size == 260


def test_an_unknown_backbone_is_refused_with_the_known_ones() -> None:
    from trainer.networks.backbones import BACKBONES, build_backbone

    with pytest.raises(ValueError, match="backbone 'resnet-9000'") as caught:
        build_backbone("resnet-9000", 224)
    assert all(name in str(caught.value) for name in BACKBONES)
