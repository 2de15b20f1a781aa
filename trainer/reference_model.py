"""The Keras model of a bundle, in two thirds of the space: kernels of 24 bits, deflated.

The engine's file holds its weights as 16-bit floats (`trainer.conversion`), which moves a probability by some
thousandths. What is rounded to 24 bits is 256 times closer, and leaves every fourth byte zero.
"""

import tempfile
import zipfile
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt


def round_kernels(model: keras.Model) -> None:
    """Round every kernel to 16 binary digits; what has one axis, as biases and statistics have, stays as it is.

    Args:
        model: changed in place; its variables stay 32-bit floats.
    """
    for variable in model.weights:
        if len(variable.shape) > 1:
            variable.assign(_rounded(keras.ops.convert_to_numpy(variable)))


def _rounded(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """To the nearest number whose last eight bits are zero."""
    bits = values.view(np.uint32)
    # Half of the last place that stays; what carries over into the exponent is the next power of two, as it should be.
    return ((bits + np.uint32(0x80)) & np.uint32(0xFFFFFF00)).view(np.float32)


def write_compressed(model: keras.Model, path: Path) -> None:
    """Write ``model.keras`` with its members deflated, which Keras does not and reads as well.

    Args:
        model: to be written.
        path: of the file.
    """
    with tempfile.TemporaryDirectory() as scratch:
        stored = Path(scratch) / path.name
        model.save(stored)
        with (
            zipfile.ZipFile(stored) as source,
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as target,
        ):
            for member in source.infolist():
                target.writestr(member.filename, source.read(member))
