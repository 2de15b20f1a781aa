"""Reading a PyTorch state dict without PyTorch: synthetic files, sound, hostile and cut short."""

import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Read = Callable[[Path], dict[str, Any]]

MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
PROTOCOL = pickle.dumps(1001, protocol=2)
SYSTEM = pickle.dumps({"little_endian": True}, protocol=2)
NUMBERS = np.arange(6, dtype="<f4")


@pytest.fixture
def read() -> Read:
    # Here and not above: its package imports TensorFlow, which takes ten seconds.
    from trainer.networks.backbones.torch_state import read_state_dict

    return read_state_dict


# Opcodes by hand, because pickling a class by name needs the class, and PyTorch is not installed.


def a_name(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def a_tuple(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def tensor(shape: tuple[int, ...], stride: tuple[int, ...], *, offset: int = 0, kind: str = "FloatStorage") -> bytes:
    """A view of the storage ``0`` of six numbers."""
    storage = a_tuple(text("storage"), a_name("torch", kind), text("0"), text("cpu"), number(6)) + b"Q"
    hooks = a_name("collections", "OrderedDict") + b")R"
    arguments = a_tuple(
        storage, number(offset), a_tuple(*map(number, shape)), a_tuple(*map(number, stride)), b"\x89", hooks
    )
    return a_name("torch._utils", "_rebuild_tensor_v2") + arguments + b"R"


def state(**tensors: bytes) -> bytes:
    items = b"".join(text(name) + value for name, value in tensors.items())
    return b"\x80\x02" + a_name("collections", "OrderedDict") + b")R(" + items + b"u."


def keys(*names: str) -> bytes:
    return pickle.dumps(list(names), protocol=2)


def storage_of(numbers: np.ndarray) -> bytes:
    return struct.pack("<q", numbers.size) + numbers.tobytes()


def whole(dictionary: bytes) -> bytes:
    return MAGIC + PROTOCOL + SYSTEM + dictionary + keys("0") + storage_of(NUMBERS)


def test_tensors_are_views_by_offset_shape_and_stride(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "sound.pth"
    path.write_bytes(
        whole(state(plain=tensor((2, 3), (3, 1)), turned=tensor((3, 2), (1, 3)), end=tensor((2,), (1,), offset=4)))
    )
    found = read(path)
    assert list(found) == ["plain", "turned", "end"]
    assert found["plain"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found["turned"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert found["end"].tolist() == [4, 5]
    assert {values.dtype for values in found.values()} == {np.dtype("float32")}


def test_counts_are_64_bit_integers_and_may_be_single_numbers(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "counts.pth"
    dictionary = state(count=tensor((), (), offset=5, kind="LongStorage"))
    path.write_bytes(MAGIC + PROTOCOL + SYSTEM + dictionary + keys("0") + storage_of(np.arange(6, dtype="<i8")))
    count = read(path)["count"]
    assert (count.shape, count.dtype, int(count)) == ((), np.dtype("int64"), 5)


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(0, id="magic number"),
        pytest.param(1, id="protocol"),
        pytest.param(2, id="system"),
        pytest.param(3, id="state dict"),
        pytest.param(4, id="storage keys"),
    ],
)
def test_no_pickle_of_the_file_runs_code(tmp_path: Path, read: Read, place: int) -> None:
    mark = tmp_path / "code-was-run"
    hostile = b"\x80\x02" + a_name("os", "mkdir") + a_tuple(text(str(mark))) + b"R."
    pickles = [MAGIC, PROTOCOL, SYSTEM, state(plain=tensor((6,), (1,))), keys("0")]
    pickles[place] = hostile
    path = tmp_path / "hostile.pth"
    path.write_bytes(b"".join(pickles) + storage_of(NUMBERS))
    refusal = None
    try:
        read(path)
    except Exception as error:
        refusal = error
    assert not mark.exists(), "the file's code was run"
    assert isinstance(refusal, pickle.UnpicklingError)
    assert "os.mkdir" in str(refusal)


@pytest.mark.parametrize(
    ("module", "name"), [("os", "system"), ("builtins", "eval"), ("torch", "HalfStorage"), ("collections", "Counter")]
)
def test_any_other_name_is_refused_and_named(tmp_path: Path, read: Read, module: str, name: str) -> None:
    path = tmp_path / "other.pth"
    path.write_bytes(whole(b"\x80\x02" + a_name(module, name) + b")R."))
    with pytest.raises(pickle.UnpicklingError, match=rf"asks for {module}\.{name},"):
        read(path)


def test_a_file_of_another_kind_is_refused(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "other.pth"
    path.write_bytes(pickle.dumps({"weights": [1, 2, 3]}))
    with pytest.raises(pickle.UnpicklingError, match=r"other\.pth is no state dict of PyTorch before 1\.6"):
        read(path)


def test_a_storage_of_another_length_than_its_tensors_expect_is_refused(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "short.pth"
    dictionary = state(plain=tensor((6,), (1,)))
    path.write_bytes(MAGIC + PROTOCOL + SYSTEM + dictionary + keys("0") + storage_of(NUMBERS[:5]))
    with pytest.raises(pickle.UnpicklingError, match=r"short\.pth.*a storage of 6 numbers is cut short"):
        read(path)


def test_a_tensor_without_its_storage_is_refused(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "none.pth"
    path.write_bytes(MAGIC + PROTOCOL + SYSTEM + state(plain=tensor((6,), (1,))) + keys())
    with pytest.raises(pickle.UnpicklingError, match="storage it does not hold"):
        read(path)


def test_a_file_cut_off_before_its_numbers_is_refused(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "cut.pth"
    data = whole(state(plain=tensor((6,), (1,))))
    for length in range(len(data) - NUMBERS.nbytes):
        path.write_bytes(data[:length])
        with pytest.raises(pickle.UnpicklingError):
            read(path)


@pytest.mark.parametrize("missing", [4, 12], ids=["one number short", "three numbers short"])
def test_a_file_cut_off_inside_its_numbers_is_refused(tmp_path: Path, read: Read, missing: int) -> None:
    path = tmp_path / "cut.pth"
    path.write_bytes(whole(state(plain=tensor((6,), (1,))))[:-missing])
    with pytest.raises(pickle.UnpicklingError, match="damaged"):
        read(path)


def test_a_tensor_that_reaches_beyond_its_storage_is_refused(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "beyond.pth"
    path.write_bytes(whole(state(plain=tensor((3, 3), (3, 1)))))
    with pytest.raises(pickle.UnpicklingError):
        read(path)
