"""The picture of a run's history."""

from pathlib import Path

import numpy as np
import pytest

from trainer.training.curves import draw_curves
from worker.images.opencv import cv2


def row(epoch: int, *, stage: str = "fine-tuning", loss: str = "0.08") -> dict[str, object]:
    return {
        "epoch": epoch,
        "stage": stage,
        "learning_rate": "0.001",
        "train_loss": f"{0.1 / epoch:.6f}",
        "validation_loss": loss,
        "validation_auc": f"{1 - 0.3 / epoch:.6f}",
    }


@pytest.mark.parametrize(
    "history",
    [
        pytest.param([row(1)], id="one epoch"),
        pytest.param([row(1, stage="head"), row(2, stage="head"), *(row(number) for number in range(3, 30))], id="two"),
        pytest.param([row(number, loss="") for number in range(1, 5)], id="seven classes"),
    ],
)
def test_a_picture_is_drawn_and_replaced(tmp_path: Path, history: list[dict[str, object]]) -> None:
    target = tmp_path / "curves.png"
    target.write_text("an older one")
    draw_curves(history, target)
    picture = cv2.imread(str(target))
    assert picture is not None
    assert picture.shape == (480, 1200, 3)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]
