"""The Keras model of a bundle: kernels with the precision of the engine's file, in little more than half the space.

The engine's file holds its weights as 16-bit floats (`trainer.conversion`). A reference with more digits than that is
larger and compared with what is not its own; with the same ones, a network of six million weights fits beside it.
"""

import tempfile
import zipfile
from pathlib import Path

import keras
import numpy as np


def round_kernels(model: keras.Model) -> None:
    """Round every kernel to the nearest 16-bit float; what has one axis, as biases and statistics have, stays as it is.

    Args:
        model: changed in place; its variables stay 32-bit floats.
    """
    for variable in model.weights:
        if len(variable.shape) > 1:
            variable.assign(keras.ops.convert_to_numpy(variable).astype(np.float16).astype(np.float32))


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
