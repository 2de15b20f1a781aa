"""Which arrays a weights file of Keras holds, without a model."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import h5py  # type: ignore[import-untyped]

Shape = tuple[int, ...]

#: Name of the weights inside a ``.keras`` archive.
_INSIDE_ARCHIVE = "model.weights.h5"


def array_shapes(path: Path) -> list[Shape]:
    """Shapes of the arrays of a model's weights; those of an optimizer, which may lie beside them, are left out.

    Args:
        path: ``.weights.h5``, ``.keras``, or the older ``.h5`` of weights or of a whole model.

    Returns:
        One shape for each array, in no particular order.

    Raises:
        OSError: it is not an HDF5 file.
        ValueError: it is an archive of another kind.
        KeyError: an archive holds no weights.
    """
    if path.suffix == ".keras":
        try:
            with zipfile.ZipFile(path) as archive:
                content: io.BytesIO | Path = io.BytesIO(archive.read(_INSIDE_ARCHIVE))
        except zipfile.BadZipFile as error:
            raise ValueError(str(error)) from None
    else:
        content = path
    with h5py.File(content, "r") as file:
        group = file.get("model_weights", file)
        return list(_shapes(group))


def _shapes(group: h5py.Group) -> Iterator[Shape]:
    for name, item in group.items():
        if name in ("optimizer", "optimizer_weights"):
            continue
        if isinstance(item, h5py.Dataset):
            yield tuple(item.shape)
        else:
            yield from _shapes(item)
