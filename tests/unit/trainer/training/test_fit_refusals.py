"""Data sets that a training cannot use, and runs that an evaluation cannot compare with, are told before any harm."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.unit.trainer.synthetic_run import changed
from trainer.config import RunConfig
from trainer.data.readers.ham10000 import METADATA_NAME
from trainer.data.splits import TRAIN, UNUSED, VALIDATION, read_manifest
from trainer.errors import DatasetError

# Keras saves weights with `np.array(variable)`; TensorFlow's variables do not know the argument NumPy 2 then passes.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

CONFIG = RunConfig(size=32, epochs=3, batch_size=8, warmup_epochs=0.5, learning_rate=1e-2)


@pytest.fixture
def with_sources(dataset: Path, tmp_path: Path, networks: list[Any]) -> tuple[Path, "pd.DataFrame"]:
    """The data set, all from vienna, and its split."""
    from trainer.training.fit import fit

    fit([dataset], tmp_path / "same-split", tmp_path / "cache", CONFIG)
    shutil.copytree(dataset, tmp_path / "HAM10000")
    return tmp_path / "HAM10000", read_manifest(tmp_path / "same-split")


def comes_from_elsewhere(root: Path, lesions: "pd.Series[str]") -> None:
    metadata = pd.read_csv(root / METADATA_NAME)
    sources = np.where(metadata["lesion_id"].isin(lesions), "elsewhere", "vienna")
    metadata.assign(dataset=sources).to_csv(root / METADATA_NAME, index=False)


def test_a_validation_side_of_one_class_is_refused_before_the_run_begins(
    with_sources: tuple[Path, pd.DataFrame], tmp_path: Path
) -> None:
    from trainer.errors import RunError
    from trainer.training.fit import fit

    root, split = with_sources
    comes_from_elsewhere(root, split.loc[(split["split"] == VALIDATION) & (split["dx"] == "nv"), "lesion_id"])
    with pytest.raises(RunError, match=r"Validation has [1-9] melanoma and 0 nevus images"):
        fit([root], tmp_path / "run", tmp_path / "cache", changed(CONFIG, without_source="elsewhere"))
    assert not (tmp_path / "run" / "config.json").exists()


def test_an_unfinished_run_to_compare_with_is_refused_before_the_test_split_is_accessed(
    with_sources: tuple[Path, pd.DataFrame], tmp_path: Path
) -> None:
    from trainer.evaluation.of_run import evaluate
    from trainer.evaluation.options import EvaluationOptions
    from trainer.training.fit import fit

    root, split = with_sources
    # One of each class on the side of training, so that each class stays on each side.
    comes_from_elsewhere(root, split[split["split"] == TRAIN].groupby("dx")["lesion_id"].first())
    run, without = tmp_path / "run", tmp_path / "without"
    fit([root], run, tmp_path / "cache", CONFIG)
    fit([root], without, tmp_path / "cache", changed(CONFIG, without_source="elsewhere"))
    (without / "validation.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no validation\.csv"):
        evaluate([root], run, EvaluationOptions(cache=tmp_path / "cache", left_out_runs=[without]))
    assert not list(run.glob("*test-access*"))
    assert not (run / "test.csv").exists()


class TestBrokenImages:
    """Images that do not decode stop a run before it begins, or are left out by choice."""

    @pytest.fixture
    def broken(self, dataset: Path, tmp_path: Path) -> Path:
        root = tmp_path / "broken"
        shutil.copytree(dataset, root)
        for name, content in (("ISIC_00150", b""), ("ISIC_00020", b"\xff\xd8\xff half a picture")):
            next(root.rglob(f"{name}.jpg")).write_bytes(content)
        return root

    def test_they_are_counted_named_and_refused(self, broken: Path, tmp_path: Path, networks: list[Any]) -> None:
        from trainer.training.fit import fit

        with pytest.raises(DatasetError, match=r"^2 of 30 images cannot be used:") as caught:
            fit([broken], tmp_path / "run", tmp_path / "cache", CONFIG)
        assert "ISIC_00150: the file is empty" in str(caught.value)
        assert "ISIC_00020: " in str(caught.value)
        assert not (tmp_path / "run").exists()

    def test_they_are_skipped_by_choice_and_recorded(self, broken: Path, tmp_path: Path, networks: list[Any]) -> None:
        from trainer.training.fit import fit

        run = tmp_path / "run"
        fit([broken], run, tmp_path / "cache", RunConfig(size=32, epochs=1, batch_size=8, skip_corrupt=True))
        manifest = read_manifest(run).set_index("image_id")["split"]
        assert set(manifest.index[manifest == UNUSED]) == {"ISIC_00150", "ISIC_00020"}
        assert set(json.loads((run / "run.json").read_text())["skipped"]) == {"ISIC_00150", "ISIC_00020"}
        assert "skipped ISIC_00150: the file is empty" in (run / "train.log").read_text()
        validation = pd.read_csv(run / "validation.csv")
        assert not set(validation["image_id"]) & {"ISIC_00150", "ISIC_00020"}
