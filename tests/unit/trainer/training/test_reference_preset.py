"""The reference's result and what it inflates, on worked numbers."""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

#: split, lesion, label, probability. Melanomas 1 and 2 of test have a sibling in training, nevus 5 as well.
ROWS = [
    ("train", "A", 1, 0.9),
    ("train", "B", 1, 0.9),
    ("train", "N1", 0, 0.1),
    ("validation", "C", 1, 0.7),
    ("validation", "C", 1, 0.65),
    ("validation", "N2", 0, 0.2),
    ("validation", "N3", 0, 0.3),
    ("test", "A", 1, 0.8),
    ("test", "B", 1, 0.9),
    ("test", "D", 1, 0.3),
    ("test", "N1", 0, 0.1),
    ("test", "N4", 0, 0.2),
    ("test", "N5", 0, 0.4),
]


def test_siblings_and_threshold_are_measured_on_worked_numbers(tmp_path: Path) -> None:
    import keras

    from trainer.run_folder import RunFolder
    from trainer.training.reference_preset import measure_reference

    images = pd.DataFrame(ROWS, columns=["split", "lesion_id", "label", "known"])
    images["dx"] = np.where(images["label"] == 1, "mel", "nv")
    output = io.StringIO()
    result = measure_reference(
        RunFolder(tmp_path),
        images.drop(columns="label"),
        lambda rows: rows["known"].to_numpy(),
        loss=keras.losses.BinaryFocalCrossentropy(apply_class_balancing=True, alpha=0.25, gamma=2.0),
        console=Console(file=output, width=300),
    )
    assert json.loads((tmp_path / "reference.json").read_text()) == result
    # Of 3 x 3 pairs one is wrong: the melanoma at 0.3 lies below the nevus at 0.4.
    assert result["auroc"] == pytest.approx(8 / 9)
    assert result["with_sibling_in_training"] == {"images": {"melanoma": 2, "nevus": 1}, "auroc": 1.0}
    assert result["without_sibling_in_training"] == {"images": {"melanoma": 1, "nevus": 2}, "auroc": 0.5}
    # On test J is 2/3 between 0.2 and 0.3, and again between 0.4 and 0.8: the lower one, as a miss weighs more. On
    # validation it is 1 between 0.3 and 0.65.
    on_test = {"threshold": 0.25, "sensitivity": 1.0, "specificity": 2 / 3}
    assert result["threshold_on_test"] == pytest.approx(on_test)
    chosen = {"threshold": 0.475, "sensitivity": 2 / 3, "specificity": 1.0}
    assert result["threshold_on_validation"] == pytest.approx(chosen)
    assert result["accuracy"] == pytest.approx(5 / 6)
    # -alpha_t (1 - p_t)^2 ln p_t, summed by hand.
    terms = [
        0.25 * (1 - p) ** 2 * -np.log(p) if label else 0.75 * p**2 * -np.log(1 - p)
        for side, _, label, p in ROWS
        if side == "test"
    ]
    assert result["loss"] == pytest.approx(np.mean(terms), rel=1e-5)
    text = output.getvalue()
    assert "2 of 3 melanoma and 1 of 3 nevus test images show a lesion that was in training" in text
    assert "AUC with such a sibling 1.0000, without 0.5000" in text
    assert "brief 0.9294" in text


def test_a_part_without_one_class_has_no_auc(tmp_path: Path) -> None:
    import keras

    from trainer.run_folder import RunFolder
    from trainer.training.reference_preset import measure_reference

    rows = [row for row in ROWS if row[1] != "D"]
    images = pd.DataFrame(rows, columns=["split", "lesion_id", "label", "known"])
    images["dx"] = np.where(images["label"] == 1, "mel", "nv")
    output = io.StringIO()
    result = measure_reference(
        RunFolder(tmp_path),
        images.drop(columns="label"),
        lambda rows: rows["known"].to_numpy(),
        loss=keras.losses.BinaryFocalCrossentropy(),
        console=Console(file=output, width=300),
    )
    assert result["without_sibling_in_training"]["auroc"] is None
    assert "not known, because a class is missing" in output.getvalue()
