"""Networks to start from, behind one small registry.

A backbone is a Keras model from 8-bit RGB to the last feature map, with its scaling inside and made of Keras' own
layers only, so that it travels in a bundle without code. A new one is a function that builds it with random weights and
an entry in `BACKBONES` that says where its ImageNet weights come from.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.errors import InputError
from trainer.networks.backbones import applications, efficientnet_lite, vision_transformer
from trainer.networks.backbones.weights import IMAGENET, NONE, WeightsSource, check_file

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """An entry of the registry.

    Args:
        architecture: takes the side of the square input in pixels, returns the model with random weights.
        source: where its ImageNet weights come from.
        size: side of the input that it was published with, in pixels.
        multiple: the side must be a multiple of this, or at least `least`.
        least: smallest side that gives a feature map, in pixels.
    """

    architecture: Callable[[int], "keras.Model"]
    source: WeightsSource
    size: int = 224
    multiple: int = 1
    least: int = 32

    @property
    def weights_from(self) -> str:
        """Where the ImageNet weights come from, for the card."""
        return self.source.description


BACKBONES: dict[str, Backbone] = {
    "efficientnet-lite0": Backbone(architecture=efficientnet_lite.LITE0.build, source=efficientnet_lite.LITE0.source),
    "efficientnet-lite2": Backbone(
        architecture=efficientnet_lite.LITE2.build, source=efficientnet_lite.LITE2.source, size=260
    ),
    "resnet50": Backbone(architecture=applications.resnet("50"), source=applications.resnet_weights("50")),
    "resnet101": Backbone(architecture=applications.resnet("101"), source=applications.resnet_weights("101")),
    "resnet152": Backbone(architecture=applications.resnet("152"), source=applications.resnet_weights("152")),
    **{
        f"efficientnetv2-{variant}": Backbone(
            architecture=applications.efficientnet_v2(variant),
            source=applications.efficientnet_v2_weights(variant),
            size=size,
        )
        for variant, size in (("b0", 224), ("b1", 240), ("b2", 260), ("b3", 300), ("s", 384))
    },
    "convnext-tiny": Backbone(architecture=applications.convnext("tiny"), source=applications.convnext_weights("tiny")),
    "convnext-small": Backbone(
        architecture=applications.convnext("small"), source=applications.convnext_weights("small")
    ),
    "vit-ti16": Backbone(
        architecture=vision_transformer.TINY.build, source=vision_transformer.TINY.source, multiple=16
    ),
    "vit-s16": Backbone(
        architecture=vision_transformer.SMALL.build, source=vision_transformer.SMALL.source, multiple=16
    ),
}


def registered(name: str) -> Backbone:
    """Entry of a backbone.

    Raises:
        InputError: the name is not registered.
    """
    try:
        return BACKBONES[name]
    except KeyError:
        raise InputError(f"--backbone {name!r} is not known. Name one of {', '.join(sorted(BACKBONES))}.") from None


def build_backbone(name: str, size: int, weights: str = IMAGENET, weights_sha256: str = "") -> "keras.Model":
    """Build a registered backbone.

    Args:
        name: key of `BACKBONES`.
        size: side of the square input in pixels.
        weights: ``imagenet``, ``none`` for random numbers, or the path of a weights file.
        weights_sha256: hexadecimal. Required for a file that is not the official one.

    Returns:
        Keras model: uint8 or float RGB of 0 to 255, (n, size, size, 3), to a feature map (n, h, w, channels).

    Raises:
        InputError: the name is not registered, or the size does not suit the backbone.
        WeightsError: the weights cannot be had, or are not what they should be.
    """
    backbone = registered(name)
    if size < backbone.least or size % backbone.multiple:
        raise InputError(
            f"--size {size} is not possible for {name}: it must be at least {backbone.least} pixels"
            + (f" and a multiple of {backbone.multiple}." if backbone.multiple > 1 else ".")
        )
    if weights not in (IMAGENET, NONE):
        # Before the network is built, which may take longer.
        check_file(Path(weights), name, backbone.source.official, weights_sha256)
    model = backbone.architecture(size)
    if weights == IMAGENET:
        backbone.source.load(model, name, [other for other, entry in BACKBONES.items() if entry.source.offline])
    elif weights != NONE:
        backbone.source.read(model, Path(weights))
    return model
