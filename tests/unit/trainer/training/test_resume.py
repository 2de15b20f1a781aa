"""A training that is killed goes on as if nothing had happened."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.unit.trainer.synthetic_ham10000 import write_dataset
from tests.unit.trainer.synthetic_run import changed
from trainer.config import RunConfig

# Keras saves weights with `np.array(variable)`; TensorFlow's variables do not know the argument NumPy 2 then passes.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

#: Two stages, dropout, a moving average and a schedule: everything that a checkpoint has to carry.
CONFIG = RunConfig(
    size=32, head_epochs=2, epochs=2, batch_size=8, warmup_epochs=0.5, learning_rate=1e-2, ema_momentum=0.8
)


class Killed(BaseException):
    """Not an Exception: nothing in the program may catch it."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("HAM10000"), melanomas=14, nevi=20)


@pytest.fixture(scope="module")
def small_network() -> Iterator[None]:
    """A network of one convolution under the real head's dropout, in place of a backbone that takes seconds."""
    import keras

    import trainer.networks.heads

    def build(name: str, size: int, weights: str, weights_sha256: str) -> Any:
        inputs = keras.Input((size, size, 3))
        x = keras.layers.Rescaling(1 / 255)(inputs)
        x = keras.layers.Conv2D(4, 3, strides=2)(x)
        x = keras.layers.BatchNormalization()(x)
        return keras.Model(inputs, keras.layers.Conv2D(8, 3, strides=2, activation="relu")(x))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.networks.heads, "build_backbone", build)
        yield


@pytest.fixture(scope="module")
def undisturbed(dataset: Path, small_network: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from trainer.training.fit import fit

    folder = tmp_path_factory.mktemp("runs")
    fit([dataset], folder / "run", folder / "cache", CONFIG)
    return folder / "run"


def assert_same_run(one: Path, two: Path, files: Sequence[str] = ("history.csv", "validation.csv")) -> None:
    import keras

    weights = [keras.saving.load_model(run / "model.keras", compile=False).get_weights() for run in (one, two)]
    assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(*weights, strict=True))
    for name in files:
        numbers = [pd.read_csv(run / name).select_dtypes("number") for run in (one, two)]
        assert numbers[0].shape == numbers[1].shape
        assert np.allclose(*numbers, atol=1e-5, equal_nan=True), name
    assert (one / "split.csv").read_bytes() == (two / "split.csv").read_bytes()


def kill_when_replacing(patch: pytest.MonkeyPatch, name: str, *, before: bool) -> None:
    """End the process, as it were, right before or after a file is put in its place."""
    move = Path.replace

    def watched(self: Path, target: Path) -> Path:
        ends = Path(target).name == name
        if ends and before:
            raise Killed
        moved = move(self, target)
        if ends:
            raise Killed
        return moved

    patch.setattr(Path, "replace", watched)


@pytest.mark.parametrize(
    ("name", "before"),
    [
        pytest.param("split.csv", False, marks=pytest.mark.slow),
        pytest.param("config.json", True, marks=pytest.mark.slow),
        # Epoch 1 is the first best one, so its weights are written; the checkpoint does not know of them yet.
        ("epoch-0001.weights.h5", False),
        pytest.param("last.npz", True, marks=pytest.mark.slow),
        ("last.npz", False),
        pytest.param("best.weights.h5", True, marks=pytest.mark.slow),
        pytest.param("history.csv", True, marks=pytest.mark.slow),
        pytest.param("model.keras", True, marks=pytest.mark.slow),
        pytest.param("validation.csv", True, marks=pytest.mark.slow),
    ],
)
def test_a_run_killed_while_it_writes_a_file_ends_as_if_undisturbed(
    dataset: Path, tmp_path: Path, undisturbed: Path, name: str, before: bool
) -> None:
    from trainer.training.fit import fit

    with pytest.MonkeyPatch.context() as patch:
        kill_when_replacing(patch, name, before=before)
        with pytest.raises(Killed):
            fit([dataset], tmp_path / "run", tmp_path / "cache", CONFIG)
    fit([dataset], tmp_path / "run", tmp_path / "cache", CONFIG)
    assert_same_run(tmp_path / "run", undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "before"),
    [("last.npz", True), ("last.npz", False), ("best.weights.h5", True), ("model.keras", True), ("model.keras", False)],
)
def test_a_run_without_validation_that_is_killed_ends_as_if_undisturbed(
    dataset: Path, tmp_path: Path, small_network: None, name: str, before: bool
) -> None:
    """What marks that it has ended is its model, and no predictions."""
    from trainer.training.fit import fit

    config = changed(CONFIG, fold="all", checkpoint="last")
    fit([dataset], tmp_path / "undisturbed", tmp_path / "cache", config)
    with pytest.MonkeyPatch.context() as patch:
        kill_when_replacing(patch, name, before=before)
        with pytest.raises(Killed):
            fit([dataset], tmp_path / "run", tmp_path / "cache", config)
    if (name, before) == ("model.keras", False):
        with pytest.raises(FileExistsError, match="holds a finished run"):
            fit([dataset], tmp_path / "run", tmp_path / "cache", config)
    else:
        fit([dataset], tmp_path / "run", tmp_path / "cache", config)
    assert_same_run(tmp_path / "run", tmp_path / "undisturbed", files=["history.csv"])
    assert (tmp_path / "run" / "train.log").read_text().splitlines()[-1].endswith(" finished")


@pytest.mark.parametrize("epoch", [pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow), 3])
def test_a_run_killed_in_an_epoch_ends_as_if_undisturbed(
    dataset: Path, tmp_path: Path, undisturbed: Path, epoch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the first stage, at the border of the stages, and in the second."""
    from trainer.training.balanced_batches import BalancedBatches
    from trainer.training.fit import fit

    draw = BalancedBatches._batch

    def killed(self: Any, index: int) -> Any:
        if self.epoch == epoch and index == 1:
            raise Killed
        return draw(self, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BalancedBatches, "_batch", killed)
        # TensorFlow turns what its data threads raise into an error of its own.
        with pytest.raises(BaseException, check=lambda error: "Killed" in f"{error} {error!r}"):  # noqa: B017
            fit([dataset], tmp_path / "run", tmp_path / "cache", CONFIG)
    assert len(pd.read_csv(tmp_path / "run" / "history.csv")) == epoch
    fit([dataset], tmp_path / "run", tmp_path / "cache", CONFIG)
    assert_same_run(tmp_path / "run", undisturbed)
    log = (tmp_path / "run" / "train.log").read_text()
    assert f"continued after epoch {epoch}" in log


def test_a_run_that_another_process_began_meanwhile_is_resumed(
    dataset: Path, tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies after the checkpoint names the best epoch, and before that epoch's weights are in their place."""
    import trainer.training.fit

    run, read = tmp_path / "run", trainer.training.fit.read_scanned

    def read_and_wait(*arguments: Any) -> Any:
        monkeypatch.setattr(trainer.training.fit, "read_scanned", read)
        with pytest.MonkeyPatch.context() as patch:
            kill_when_replacing(patch, "last.npz", before=False)
            with pytest.raises(Killed):
                trainer.training.fit.fit([dataset], run, tmp_path / "cache", CONFIG)
        assert list((run / "checkpoints").glob("epoch-*.weights.h5"))
        return read(*arguments)

    monkeypatch.setattr(trainer.training.fit, "read_scanned", read_and_wait)
    trainer.training.fit.fit([dataset], run, tmp_path / "cache", CONFIG)
    assert "continued after epoch 1" in (run / "train.log").read_text()
    assert_same_run(run, undisturbed)


def test_without_the_optimizers_state_it_would_end_differently(
    dataset: Path, tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the tests above would miss if a checkpoint's optimizer did not matter."""
    import trainer.training.fit

    restore = trainer.training.fit.restore_checkpoint
    monkeypatch.setattr(
        trainer.training.fit, "restore_checkpoint", lambda path, model, optimizer: restore(path, model, optimizer=False)
    )
    with pytest.MonkeyPatch.context() as patch:
        # After the third of four epochs, in the middle of the second stage.
        save = trainer.training.validation_callback.save_checkpoint

        def killed(path: Path, model: Any, progress: Any) -> None:
            save(path, model, progress)
            if progress.epoch == 3:
                raise Killed

        patch.setattr("trainer.training.validation_callback.save_checkpoint", killed)
        with pytest.raises(Killed):
            trainer.training.fit.fit([dataset], tmp_path / "run", tmp_path / "cache", CONFIG)
    trainer.training.fit.fit([dataset], tmp_path / "run", tmp_path / "cache", CONFIG)
    with pytest.raises(AssertionError):
        assert_same_run(tmp_path / "run", undisturbed)


def test_a_finished_run_is_refused(dataset: Path, tmp_path: Path, undisturbed: Path) -> None:
    from trainer.training.fit import fit

    before = (undisturbed / "model.keras").read_bytes()
    with pytest.raises(FileExistsError, match="holds a finished run"):
        fit([dataset], undisturbed, tmp_path / "cache", CONFIG)
    assert (undisturbed / "model.keras").read_bytes() == before


@pytest.fixture
def interrupted(undisturbed: Path, tmp_path: Path) -> Path:
    """The run as it was before its last file was written."""
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    (run / "validation.csv").unlink()
    return run


def test_other_settings_are_refused_and_named(dataset: Path, tmp_path: Path, interrupted: Path) -> None:
    from trainer.errors import RunError
    from trainer.training.fit import fit

    with pytest.raises(RunError) as caught:
        fit([dataset], interrupted, tmp_path / "cache", changed(CONFIG, epochs=9, learning_rate=0.5))
    text = str(caught.value)
    assert "--epochs: the run has 2, asked for is 9" in text
    assert "--learning-rate: the run has 0.01, asked for is 0.5" in text
    assert "--seed" not in text


def test_other_data_are_refused(dataset: Path, tmp_path: Path, interrupted: Path) -> None:
    from trainer.errors import RunError
    from trainer.training.fit import fit

    changed = tmp_path / "changed"
    shutil.copytree(dataset, changed)
    one, other = sorted(changed.rglob("*.jpg"))[:2]
    one.write_bytes(other.read_bytes())
    with pytest.raises(RunError, match="begun with other data"):
        fit([changed], interrupted, tmp_path / "cache", CONFIG)


def test_another_backend_of_keras_is_refused(
    dataset: Path, tmp_path: Path, interrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its dropout draws other numbers: the run would end with weights that neither backend gives by itself."""
    import keras

    from trainer.errors import RunError
    from trainer.training.fit import fit

    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(
        RunError, match=r"begun with the Keras backend tensorflow, and this is jax.*KERAS_BACKEND=tensorflow"
    ):
        fit([dataset], interrupted, tmp_path / "cache", CONFIG)


def test_a_folder_in_use_is_refused(dataset: Path, tmp_path: Path, interrupted: Path) -> None:
    from trainer.errors import RunError
    from trainer.run_folder import RunFolder
    from trainer.training.fit import fit

    with RunFolder(interrupted).lock(), pytest.raises(RunError, match="Another process trains"):
        fit([dataset], interrupted, tmp_path / "cache", CONFIG)


def test_a_run_without_its_description_is_refused(dataset: Path, tmp_path: Path, interrupted: Path) -> None:
    from trainer.errors import MissingError
    from trainer.training.fit import fit

    (interrupted / "run.json").unlink()
    with pytest.raises(MissingError, match=r"has no run\.json"):
        fit([dataset], interrupted, tmp_path / "cache", CONFIG)


def test_a_checkpoint_without_settings_is_not_resumed(
    dataset: Path, tmp_path: Path, undisturbed: Path, interrupted: Path
) -> None:
    from trainer.training.fit import fit

    (interrupted / "config.json").unlink()
    fit([dataset], interrupted, tmp_path / "cache", CONFIG)
    assert "epoch 1 (head)" in (interrupted / "train.log").read_text().split("begun")[-1]
    assert_same_run(interrupted, undisturbed)


def test_a_damaged_checkpoint_is_named(dataset: Path, tmp_path: Path, interrupted: Path) -> None:
    from trainer.errors import CheckpointError
    from trainer.training.fit import fit

    (interrupted / "checkpoints" / "last.npz").write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(CheckpointError, match=r"last\.npz is damaged"):
        fit([dataset], interrupted, tmp_path / "cache", CONFIG)
