"""The heads on a backbone: the reference one for two classes, and one for the seven diagnoses."""

import random
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

from trainer.data.diagnoses import DIAGNOSES
from trainer.networks.backbones import build_backbone
from trainer.networks.backbones.weights import IMAGENET
from worker.inference.evidence import Head

#: Names of the outputs that every exported model has, in order; seven classes add ``class_probabilities``.
OUTPUTS = ("probability", "features", "feature_map")


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """One network, seen twice: as it is trained and as it scores.

    Args:
        trained: images to what the loss is computed on: the probability of melanoma (n, 1), or those of the classes.
        scoring: images to the probability of melanoma against nevus, (n, 1).
        backbone: the part that both share, without the head.
    """

    trained: keras.Model
    scoring: keras.Model
    backbone: keras.Model


def build_classifier(backbone: str, size: int, weights: str = IMAGENET, weights_sha256: str = "") -> Classifier:
    """The reference head: global average pooling, Dense 128 ReLU, Dropout 0.5, Dense 1 sigmoid.

    Args:
        backbone: name in `trainer.networks.backbones.BACKBONES`.
        size: side of the square input in pixels.
        weights: first weights of the backbone: ``imagenet``, ``none`` or a file.
        weights_sha256: of that file, hexadecimal; may be empty for the official one.

    Returns:
        A classifier whose two sides are the same network, from RGB of 0 to 255, (n, size, size, 3).

    Raises:
        WeightsError: the first weights are not to be had, or are not what they should be.
    """
    base = build_backbone(backbone, size, weights, weights_sha256)
    hidden = _hidden(base)
    # float32 whatever the policy: a probability near 0 or 1 must not be rounded.
    probability = layers.Dense(1, activation="sigmoid", dtype="float32", name="probability")(hidden)
    name = f"{backbone}-melanoma"
    return Classifier(
        trained=keras.Model(base.input, probability, name=name),
        # A model of its own that is never compiled, so that the saved file holds no optimizer.
        scoring=keras.Model(base.input, probability, name=name),
        backbone=base,
    )


def build_seven_class_classifier(
    backbone: str, size: int, weights: str = IMAGENET, weights_sha256: str = ""
) -> Classifier:
    """The same body under a softmax of the seven diagnoses, read as melanoma against nevus.

    p(mel) / (p(mel) + p(nv)) is the sigmoid of the difference of two logits, which a dense layer with the fixed weights
    +1 and -1 computes: no code travels with the model.

    Args:
        backbone: name in `trainer.networks.backbones.BACKBONES`.
        size: side of the square input in pixels.
        weights: first weights of the backbone: ``imagenet``, ``none`` or a file.
        weights_sha256: of that file, hexadecimal; may be empty for the official one.

    Returns:
        A classifier trained on (n, 7), in the order of `trainer.data.readers.ham10000.DIAGNOSES`.

    Raises:
        WeightsError: the first weights are not to be had, or are not what they should be.
    """
    base = build_backbone(backbone, size, weights, weights_sha256)
    hidden = _hidden(base)
    logits = layers.Dense(len(DIAGNOSES), dtype="float32", name="logits")(hidden)
    classes = layers.Softmax(dtype="float32", name="classes")(logits)
    against = layers.Dense(
        1, use_bias=False, activation="sigmoid", trainable=False, dtype="float32", name="probability"
    )
    probability = against(logits)
    kernel = np.zeros((len(DIAGNOSES), 1), np.float32)
    kernel[DIAGNOSES.index("mel")], kernel[DIAGNOSES.index("nv")] = 1, -1
    against.set_weights([kernel])
    return Classifier(
        trained=keras.Model(base.input, classes, name=f"{backbone}-seven"),
        scoring=keras.Model(base.input, probability, name=f"{backbone}-melanoma"),
        backbone=base,
    )


def _hidden(base: keras.Model) -> Any:
    features = layers.GlobalAveragePooling2D(name="features")(base.output)
    hidden = layers.Dense(128, activation="relu", name="hidden")(features)
    # Drawn from the generator that Keras itself would draw from. Without a seed PyTorch's dropout uses a state that no
    # checkpoint holds.
    seed = random.randint(1, 10**9)  # noqa: S311
    return layers.Dropout(0.5, seed=seed, name="dropout")(hidden)


def with_all_outputs(classifier: keras.Model) -> keras.Model:
    """The same network with the outputs of the bundle: probability, pooled features, last feature map, classes.

    Args:
        classifier: the scoring side.

    Returns:
        Keras model with outputs named as in `OUTPUTS`: (n, 1), (n, channels), (n, h, w, channels), and with
        ``class_probabilities``, (n, 7), when it was trained on the seven diagnoses.
    """
    pooling = classifier.get_layer("features")
    outputs = {"probability": classifier.output, "features": pooling.output, "feature_map": pooling.input}
    if any(layer.name == "logits" for layer in classifier.layers):
        # The scoring side ends in a difference of two logits; the softmax is put on them anew.
        softmax = layers.Softmax(dtype="float32", name="class_probabilities")
        outputs["class_probabilities"] = softmax(classifier.get_layer("logits").output)
    return keras.Model(classifier.input, outputs, name=classifier.name)


def head_of(model: keras.Model) -> Head:
    """The layers behind the pooling, up to the logit of melanoma; of seven classes, of melanoma against nevus.

    Args:
        model: from `build_classifier`, `build_seven_class_classifier` or `with_all_outputs`.
    """
    hidden, bias = model.get_layer("hidden").get_weights()
    output = model.get_layer("probability").get_weights()[0][:, 0]
    if any(layer.name == "logits" for layer in model.layers):
        output = model.get_layer("logits").get_weights()[0] @ output
    return Head(hidden=hidden, bias=bias, output=output)
