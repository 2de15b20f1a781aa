"""The bundle's Keras model: rounded a little, small, and read by Keras as any other."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


@pytest.fixture
def model() -> Any:
    import keras

    keras.utils.set_random_seed(4)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(32, 3)(inputs))
    x = keras.layers.Conv2D(32, 3)(x)
    outputs = keras.layers.Dense(300, bias_initializer="random_normal")(keras.layers.Flatten()(x))
    return keras.Model(inputs, outputs)


def test_kernels_are_rounded_to_13_digits_and_vectors_are_not(model: Any) -> None:
    from trainer.export.reference_model import round_kernels

    before = model.get_weights()
    round_kernels(model)
    for was, now in zip(before, model.get_weights(), strict=True):
        assert now.dtype == np.float32
        if was.ndim == 1:
            assert np.array_equal(now, was)
            continue
        assert not np.array_equal(now, was)
        assert not (now.view(np.uint32) & 0x7FF).any()
        # To nearest: half of the last of 13 digits, the hidden one included.
        assert np.all(np.abs(now - was) <= np.abs(was) * 2.0**-13)


@pytest.mark.parametrize(
    ("value", "wanted"), [(1.0, 1.0), (-1.0, -1.0), (0.0, 0.0), (2 - 2.0**-20, 2.0), (1 + 2.0**-12, 1 + 2.0**-12)]
)
def test_what_carries_over_is_the_next_power_of_two(value: float, wanted: float) -> None:
    from trainer.export.reference_model import _rounded

    assert _rounded(np.array([[value]], np.float32)) == wanted


def test_the_file_is_read_as_it_was_written_and_takes_less_space(model: Any, tmp_path: Path) -> None:
    import keras

    from trainer.export.reference_model import round_kernels, write_compressed

    model.save(tmp_path / "plain.keras")
    round_kernels(model)
    write_compressed(model, tmp_path / "model.keras")
    read = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    assert all(np.array_equal(*pair) for pair in zip(read.get_weights(), model.get_weights(), strict=True))
    assert (tmp_path / "model.keras").stat().st_size < 0.7 * (tmp_path / "plain.keras").stat().st_size
    with zipfile.ZipFile(tmp_path / "model.keras") as file:
        assert file.testzip() is None
        assert {member.compress_type for member in file.infolist()} == {zipfile.ZIP_DEFLATED}
