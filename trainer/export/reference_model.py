"""The Keras model of a bundle, in 60% of the space: kernels rounded to 13 binary digits, and compressed.

The engine's file has 16-bit weights (`trainer.networks.openvino_conversion`) of 11 binary digits, which moves a
probability by some thousandths. With 13 digits the difference is four times smaller, and 11 of 32 bits are zero, which
compression removes. The bundle of an EfficientNet-Lite2 stays below 25 MB.
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
    """Round every kernel to `DIGITS` binary digits. Weights with one axis, such as biases and statistics, stay.

    Args:
        model: changed in place. Its variables stay 32-bit floats.
    """
    for variable in model.weights:
        if len(variable.shape) > 1:
            variable.assign(_rounded(keras.ops.convert_to_numpy(variable)))


def _rounded(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The nearest number with `DIGITS` digits."""
    # A 32-bit float has 24, of which the first is not stored.
    last = 1 << (24 - DIGITS)
    bits = values.view(np.uint32)
    # Adds half of the last digit. A carry into the exponent correctly gives the next power of two.
    return ((bits + np.uint32(last // 2)) & np.uint32(2**32 - last)).view(np.float32)


def write_compressed(model: keras.Model, path: Path) -> None:
    """Write ``model.keras`` compressed. Keras reads it, but does not compress by itself.

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
