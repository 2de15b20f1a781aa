"""The Keras model of a bundle, in six tenths of the space: kernels of 21 bits, deflated.

The engine's file holds its weights as 16-bit floats (`trainer.networks.openvino_conversion`), which moves a
probability by some thousandths, for they have 11 binary digits. What is rounded to 13 is four times closer, and of its
32 bits eleven are zero, which deflating takes away. With it the bundle of an EfficientNet-Lite2 stays below 25 MB.
"""

import tempfile
import zipfile
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt

#: Binary digits of a kernel's numbers.
DIGITS = 13


def round_kernels(model: keras.Model) -> None:
    """Round every kernel to `DIGITS` binary digits; what has one axis, as biases and statistics have, stays as it is.

    Args:
        model: changed in place; its variables stay 32-bit floats.
    """
    for variable in model.weights:
        if len(variable.shape) > 1:
            variable.assign(_rounded(keras.ops.convert_to_numpy(variable)))


def _rounded(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """To the nearest number of so many digits."""
    # A 32-bit float has 24, of which the first is not written.
    last = 1 << (24 - DIGITS)
    bits = values.view(np.uint32)
    # Half of the last place that stays; what carries over into the exponent is the next power of two, as it should be.
    return ((bits + np.uint32(last // 2)) & np.uint32(2**32 - last)).view(np.float32)


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
