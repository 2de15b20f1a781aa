"""A bundle in the place of another: whole, refused, or brought back after a kill."""

import re
from pathlib import Path

import pytest

from tests.synthetic_bundle import make_bundle
from trainer.errors import ExportError
from trainer.export.folder import new_bundle, refuse_occupied
from worker.inference.bundle import MANIFEST_NAME


class Killed(BaseException):
    """What a process does not live to see."""


def test_a_network_is_converted_by_tensorflow_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Keras' other backends a run can be trained; told early, where a traceback of OpenVINO's came late."""
    import keras

    from trainer.errors import RunError
    from trainer.networks.openvino_conversion import convert

    monkeypatch.setattr(keras.config, "backend", lambda: "torch")
    with pytest.raises(RunError, match=r"KERAS_BACKEND is torch, .* needs KERAS_BACKEND=tensorflow"):
        convert(keras.Sequential(), tmp_path / "model.xml", 32)


def test_a_bundle_that_a_killed_export_had_put_aside_is_brought_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next attempt took it away with the rest of the first, even when it was itself refused."""
    target = make_bundle(tmp_path / "shipped")
    manifest = (target / MANIFEST_NAME).read_bytes()
    rename, moved = Path.rename, []

    def rename_once(self: Path, to: Path) -> Path:
        if moved:
            raise Killed
        moved.append(to)
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", rename_once)
    # A kill leaves the folder that the context would have taken away.
    monkeypatch.setattr("tempfile.TemporaryDirectory.cleanup", lambda self: self._finalizer.detach())
    with pytest.raises(Killed), new_bundle(target) as folder:
        (folder / MANIFEST_NAME).write_text("{}")
    monkeypatch.undo()
    assert not target.exists()

    with pytest.raises(ExportError, match="--replace"):
        refuse_occupied(target, replace=False, name="synthetic", version="2")
    assert (target / MANIFEST_NAME).read_bytes() == manifest
    with new_bundle(target) as folder:
        (folder / MANIFEST_NAME).write_text("{}")
    assert [path.name for path in tmp_path.iterdir()] == ["shipped"]
    assert (target / MANIFEST_NAME).read_text() == "{}"


@pytest.mark.parametrize(("name", "version"), [("", "1"), ("synthetic", " ")])
def test_a_bundle_has_a_name_and_a_version(tmp_path: Path, name: str, version: str) -> None:
    with pytest.raises(ExportError, match="must not be empty"):
        refuse_occupied(tmp_path / "new", replace=False, name=name, version=version)


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("mine")
    for replace in (False, True):
        with pytest.raises(ExportError, match="holds something else"):
            refuse_occupied(tmp_path, replace=replace, name="synthetic", version="1")
    assert precious.read_text() == "mine"


@pytest.mark.parametrize("left", [0, 1, 2, 3])
def test_a_run_that_is_not_finished_and_evaluated_is_not_exported(tmp_path: Path, left: int) -> None:
    """Its card would lack groups, robustness and warnings without saying so."""
    from trainer.export.export import export

    needed = ("model.keras", "validation.csv", "metrics.json", "report.json")
    for name in needed[:left]:
        (tmp_path / name).write_text("")
    with pytest.raises(ExportError, match=f"has no {re.escape(needed[left])}"):
        export([tmp_path], tmp_path, tmp_path / "bundle", name="synthetic", version="1")
    assert not (tmp_path / "bundle").exists()
