"""A Keras model as the OpenVINO model that a bundle carries."""

import tempfile
from pathlib import Path

import keras
import openvino

from trainer.errors import RunError


def convert(model: keras.Model, target: Path, size: int, *, half: bool = True) -> None:
    """Write a model with 8-bit RGB in and the named outputs out.

    Args:
        model: from `trainer.networks.heads.with_all_outputs`.
        target: ``model.xml``; ``model.bin`` is written beside it.
        size: side of the square input in pixels.
        half: store the weights as 16-bit floats, in half of the room; either way they are computed with as 32-bit.

    Raises:
        RunError: Keras' backend is not TensorFlow.
    """
    require_tensorflow()
    with tempfile.TemporaryDirectory() as saved:
        model.export(saved, format="tf_saved_model", verbose=False)
        converted = openvino.convert_model(saved, input=[openvino.PartialShape([-1, size, size, 3])])
    by_name = {name: output for output in converted.outputs for name in output.get_names()}
    names = tuple(model.output)
    converted = openvino.Model([by_name[name] for name in names], converted.get_parameters(), model.name)
    steps = openvino.preprocess.PrePostProcessor(converted)
    steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    steps.input().preprocess().convert_element_type(openvino.Type.f32)
    converted = steps.build()
    for output, name in zip(converted.outputs, names, strict=True):
        output.get_tensor().set_names({name})
    openvino.save_model(converted, target, compress_to_fp16=half)


def require_tensorflow() -> None:
    """Refuse the other backends of Keras. A run may be trained on them, and TensorFlow reads their networks.

    Raises:
        RunError: names the backend.
    """
    if (backend := keras.config.backend()) != "tensorflow":
        raise RunError(
            f"KERAS_BACKEND is {backend}, and converting a network for OpenVINO needs KERAS_BACKEND=tensorflow, also "
            "for runs that were trained on another backend."
        )
