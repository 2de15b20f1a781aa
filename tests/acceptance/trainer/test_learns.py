"""A small training on synthetic images, in its own process, killed in the middle: it goes on, ends, and has learned."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from tests.unit.trainer.synthetic_ham10000 import write_dataset
from trainer.data.diagnoses import melanoma_or_nevus
from trainer.data.readers.ham10000 import read_ham10000
from trainer.data.splits import TEST, images_with_split
from worker.images.preprocess import Preprocessing

SIZE = 64
#: Seconds that the killed part and the rest may take together on two idle cores; it takes less than half of that.
_PATIENCE = 240.0

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def command(dataset: Path, folder: Path) -> list[str]:
    options = {
        "size": SIZE,
        "head-epochs": 1,
        "epochs": 5,
        "batch-size": 8,
        "warmup-epochs": 1,
        "ema-momentum": 0.8,
        "dataset": dataset,
        "cache": folder / "cache",
    }
    given = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
    return [sys.executable, "-m", "trainer.cli", "fit", str(folder / "run"), *given]


def epochs_done(run: Path) -> int:
    history = run / "history.csv"
    return len(pd.read_csv(history)) if history.exists() else 0


def test_a_training_that_is_killed_goes_on_and_learns(tmp_path: Path) -> None:
    (tmp_path / "HAM10000").mkdir()
    dataset = write_dataset(tmp_path / "HAM10000", melanomas=50, nevi=80, width=96, height=72)
    run = tmp_path / "run"
    # `python -m`, so that the process that is killed is the one that trains.
    with subprocess.Popen(command(dataset, tmp_path), stderr=subprocess.PIPE, text=True) as first:
        deadline = time.monotonic() + _PATIENCE
        while epochs_done(run) < 2:
            assert first.poll() is None, first.stderr.read() if first.stderr else ""
            assert time.monotonic() < deadline
            time.sleep(0.2)
        os.kill(first.pid, signal.SIGKILL)
    assert not (run / "model.keras").exists()

    done = subprocess.run(
        command(dataset, tmp_path), capture_output=True, text=True, check=False, timeout=_PATIENCE, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    assert "Continuing after epoch 2." in done.stderr or "Continuing after epoch 3." in done.stderr
    assert "epoch 6 of 6 (fine-tuning): loss" in done.stderr
    assert pd.read_csv(run / "history.csv")["epoch"].tolist() == [1, 2, 3, 4, 5, 6]
    assert not list(run.rglob(".unfinished-*"))

    assert held_out_auc(dataset, run) > 0.9


def held_out_auc(dataset: Path, run: Path) -> float:
    """On the test split, which the training did not see."""
    import keras

    from trainer.data.resized_cache import load_inputs
    from trainer.networks.predict import predict

    images = melanoma_or_nevus(images_with_split(read_ham10000(dataset), run))
    test = images[images["split"] == TEST]
    model = keras.saving.load_model(run / "model.keras", compile=False)
    inputs = load_inputs([Path(path) for path in test["path"]], Preprocessing(size=SIZE))
    assert np.unique(test["label"]).tolist() == [0, 1]
    return float(roc_auc_score(test["label"], predict(model, inputs)))
