"""The vision transformer, in Keras' own layers only.

Dosovitskiy et al., "An image is worth 16x16 words", ICLR 2021; weights: Steiner et al., "How to train your ViT?", TMLR
2022, https://github.com/google-research/vision_transformer.

Class token and position embedding are parameters without a layer of their own in Keras. Both are the bias of the patch
embedding here, one row for each position; the class token is the row of a patch of zeros. That is the same function
and needs no class that a bundle would have to carry. The feature map is the patches after the last normalisation.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers

from trainer.errors import WeightsError
from trainer.networks.backbones.weights import OwnFile
from worker.images.opencv import cv2

#: Side of a patch in pixels.
_PATCH = 16
_EPSILON = 1e-6
_WHERE = "https://storage.googleapis.com/vit_models/augreg/"


@dataclass(frozen=True, kw_only=True)
class VisionTransformer:
    """One of the family, with patches of 16 x 16 pixels.

    Args:
        name: as published, ``Ti`` or ``S``.
        width: length of a patch's vector.
        heads: of each attention.
        depth: blocks.
    """

    name: str
    width: int
    heads: int
    depth: int = 12

    @property
    def source(self) -> OwnFile:
        """Where the weights come from."""
        return OwnFile(
            published=f"ViT-{self.name}/16 of AugReg (Apache-2.0), a file {self.name}_16-i21k-….npz of {_WHERE}",
            read_published=self.read_augreg,
            suffix=".npz",
        )

    def build(self, size: int) -> keras.Model:
        """The network up to its last feature map, with random weights.

        Args:
            size: side of the square input in pixels, a multiple of 16.

        Returns:
            Keras model from RGB of 0 to 255, (n, size, size, 3), to (n, size / 16, size / 16, width).
        """
        side = size // _PATCH
        inputs = keras.Input((size, size, 3), name="image")
        x = layers.Rescaling(1 / 127.5, offset=-1.0, name="scale")(inputs)
        x = layers.Reshape((side, _PATCH, side, _PATCH, 3), name="cut")(x)
        x = layers.Permute((1, 3, 2, 4, 5), name="gather")(x)
        x = layers.Reshape((side * side, _PATCH * _PATCH * 3), name="patches")(x)
        x = layers.ZeroPadding1D((1, 0), name="class_patch")(x)
        x = layers.EinsumDense(
            "npc,cd->npd",
            (side * side + 1, self.width),
            bias_axes="pd",
            bias_initializer=keras.initializers.TruncatedNormal(stddev=0.02),
            name="embedding",
        )(x)
        for block in range(self.depth):
            x = self._block(x, f"block{block}")
        x = layers.LayerNormalization(epsilon=_EPSILON, name="norm")(x)
        x = layers.Cropping1D((1, 0), name="patches_only")(x)
        features = layers.Reshape((side, side, self.width), name="feature_map")(x)
        return keras.Model(inputs, features, name=f"vit-{self.name.lower()}16")

    def _block(self, x: Any, name: str) -> Any:
        y = layers.LayerNormalization(epsilon=_EPSILON, name=f"{name}_norm1")(x)
        attention = layers.MultiHeadAttention(self.heads, self.width // self.heads, name=f"{name}_attention")
        x = layers.Add(name=f"{name}_add1")([x, attention(y, y)])
        y = layers.LayerNormalization(epsilon=_EPSILON, name=f"{name}_norm2")(x)
        y = layers.Dense(4 * self.width, activation="gelu", name=f"{name}_dense1")(y)
        y = layers.Dense(self.width, name=f"{name}_dense2")(y)
        return layers.Add(name=f"{name}_add2")([x, y])

    def read_augreg(self, model: keras.Model, path: Path) -> None:
        """Set the weights of a published ``.npz`` file. The position embedding is resized to the model's side.

        Raises:
            WeightsError: an array is missing or has another shape.
        """
        try:
            with np.load(path, allow_pickle=False) as published:
                self._set(model, dict(published))
        except (KeyError, ValueError, OSError) as error:
            raise WeightsError(
                f"{path.name} does not hold the arrays of ViT-{self.name}/16 ({error}). Fetch {self.source.published}."
            ) from None

    def _set(self, model: keras.Model, published: dict[str, npt.NDArray[Any]]) -> None:
        kernel = published["embedding/kernel"].reshape(-1, self.width)
        positions = published["Transformer/posembed_input/pos_embedding"][0]
        side = model.get_layer("feature_map").output.shape[1]
        bias = _resized(positions[1:], side) + published["embedding/bias"]
        first = positions[:1] + published["cls"][0]
        model.get_layer("embedding").set_weights([kernel, np.concatenate((first, bias))])
        for block in range(self.depth):
            at = f"Transformer/encoderblock_{block}"
            attention = f"{at}/MultiHeadDotProductAttention_1"
            parts = {
                "norm1": _pair(published, f"{at}/LayerNorm_0", "scale"),
                "attention": [
                    array
                    for part in ("query", "key", "value", "out")
                    for array in _pair(published, f"{attention}/{part}", "kernel")
                ],
                "norm2": _pair(published, f"{at}/LayerNorm_2", "scale"),
                "dense1": _pair(published, f"{at}/MlpBlock_3/Dense_0", "kernel"),
                "dense2": _pair(published, f"{at}/MlpBlock_3/Dense_1", "kernel"),
            }
            for part, arrays in parts.items():
                model.get_layer(f"block{block}_{part}").set_weights(arrays)
        model.get_layer("norm").set_weights(_pair(published, "Transformer/encoder_norm", "scale"))


def _pair(published: dict[str, npt.NDArray[Any]], at: str, first: str) -> list[npt.NDArray[Any]]:
    return [published[f"{at}/{first}"], published[f"{at}/bias"]]


def _resized(positions: npt.NDArray[Any], side: int) -> npt.NDArray[Any]:
    """Position embeddings (h x h, width) to another number of patches, as images of `width` channels."""
    published = round(len(positions) ** 0.5)
    if published == side:
        return positions
    grid = positions.reshape(published, published, -1).astype(np.float32)
    # A channel at a time: OpenCV takes no images of hundreds of channels.
    planes = [cv2.resize(plane, (side, side), interpolation=cv2.INTER_LINEAR) for plane in np.moveaxis(grid, 2, 0)]
    return np.stack(planes, axis=2).reshape(side * side, -1)


TINY = VisionTransformer(name="Ti", width=192, heads=3)
SMALL = VisionTransformer(name="S", width=384, heads=6)
