"""ResNet, EfficientNetV2 and ConvNeXt as keras.applications builds them, with their scaling inside.

He et al., "Deep residual learning for image recognition", CVPR 2016; Tan & Le, "EfficientNetV2: smaller models and
faster training", ICML 2021; Liu et al., "A ConvNet for the 2020s", CVPR 2022.

Hashes and addresses of the official weight files are those in Keras' own source.
"""

from collections.abc import Callable

import keras
from keras.src.applications import convnext as keras_convnext
from keras.src.applications import efficientnet_v2 as keras_efficientnet_v2
from keras.src.applications import resnet as keras_resnet

from trainer.networks.backbones.weights import KerasWeights, OfficialFile

#: Mean of ImageNet's red, green and blue, which ResNet's weights expect to be taken off.
_IMAGENET_MEAN = (123.68, 116.779, 103.939)

Architecture = Callable[[int], keras.Model]


def resnet(depth: str) -> Architecture:
    """ResNet of 50, 101 or 152 layers, to a feature map (n, size / 32, size / 32, 2048)."""

    def build(size: int) -> keras.Model:
        inputs = _image(size)
        x = keras.layers.Normalization(mean=_IMAGENET_MEAN, variance=(1.0, 1.0, 1.0), name="scale")(inputs)
        return _without_top(getattr(keras.applications, f"ResNet{depth}"), inputs, x, f"resnet{depth}")

    return build


def resnet_weights(depth: str) -> KerasWeights:
    """Official weights of a ResNet; they expect blue first, which is turned round once, in the first kernel."""
    name = f"resnet{depth}_weights_tf_dim_ordering_tf_kernels_notop.h5"
    digest_with_top, digest = keras_resnet.WEIGHTS_HASHES[f"resnet{depth}"]
    official = OfficialFile(
        name=name, url=keras_resnet.BASE_WEIGHTS_PATH + name, digest=digest, digest_with_top=digest_with_top
    )
    return KerasWeights(official=official, convert=_blue_first_to_red_first)


def _blue_first_to_red_first(model: keras.Model) -> None:
    kernel, bias = model.get_layer("conv1_conv").get_weights()
    model.get_layer("conv1_conv").set_weights([kernel[:, :, ::-1], bias])


def efficientnet_v2(variant: str) -> Architecture:
    """EfficientNetV2, ``b0`` to ``b3`` or ``s``, to a feature map of a 32nd of the side."""

    def build(size: int) -> keras.Model:
        inputs = _image(size)
        application = getattr(keras.applications, f"EfficientNetV2{variant.upper()}")
        return _without_top(application, inputs, inputs, f"efficientnetv2-{variant}")

    return build


def efficientnet_v2_weights(variant: str) -> KerasWeights:
    """Official weights of an EfficientNetV2."""
    key = variant if variant.startswith("b") else f"-{variant}"
    name = f"efficientnetv2-{variant}_notop.h5"
    digest_with_top, digest = keras_efficientnet_v2.WEIGHTS_HASHES[key]
    return KerasWeights(
        official=OfficialFile(
            name=name,
            url=keras_efficientnet_v2.BASE_WEIGHTS_PATH + name,
            digest=digest,
            digest_with_top=digest_with_top,
        )
    )


def convnext(variant: str) -> Architecture:
    """ConvNeXt, ``tiny`` or ``small``, to a feature map (n, size / 32, size / 32, 768)."""

    def build(size: int) -> keras.Model:
        inputs = _image(size)
        application = getattr(keras.applications, f"ConvNeXt{variant.capitalize()}")
        return _without_top(application, inputs, inputs, f"convnext-{variant}")

    return build


def convnext_weights(variant: str) -> KerasWeights:
    """Official weights of a ConvNeXt."""
    name = f"convnext_{variant}_notop.h5"
    digest_with_top, digest = keras_convnext.WEIGHTS_HASHES[f"convnext_{variant}"]
    return KerasWeights(
        official=OfficialFile(
            name=name, url=keras_convnext.BASE_WEIGHTS_PATH + name, digest=digest, digest_with_top=digest_with_top
        )
    )


def _image(size: int) -> keras.KerasTensor:
    return keras.Input((size, size, 3), name="image")


def _without_top(
    application: Callable[..., keras.Model], inputs: keras.KerasTensor, scaled: keras.KerasTensor, name: str
) -> keras.Model:
    published = application(include_top=False, weights=None, input_tensor=scaled)
    # As a model of one tensor: keras.applications takes its inputs as a list.
    return keras.Model(inputs, published.output, name=name)
