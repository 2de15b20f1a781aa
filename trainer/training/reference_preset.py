"""The result of the reference preset, and by how much its method makes it too good.

The method splits image by image and chooses the threshold on the test split. The split puts siblings of test images,
other images of the same lesion, into training; the threshold depends on the images that it is measured on. Both are
done here, and both effects are measured.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.console import Console
from sklearn.metrics import roc_auc_score

from trainer.data.diagnoses import melanoma_or_nevus
from trainer.data.splits import TEST, TRAIN, VALIDATION
from trainer.data.test_access_log import log_test_access
from trainer.run_folder import RunFolder
from trainer.thresholds.threshold import operating_point, youden_threshold
from worker.atomic_files import write_text

#: What the project's brief reports, by the method that is repeated here.
BRIEF = {
    "auroc": 0.9294,
    "threshold": 0.482,
    "sensitivity": 0.93,
    "specificity": 0.776,
    "accuracy": 0.8453,
    "loss": 0.0686,
    "images": {"melanoma": 223, "nevus": 223},
}

#: Takes rows with ``path``, gives the probability of melanoma of each.
Predict = Callable[[pd.DataFrame], npt.NDArray[np.float64]]


def measure_reference(
    folder: RunFolder, images: pd.DataFrame, predict: Predict, *, loss: keras.losses.Loss, console: Console
) -> dict[str, Any]:
    """Predict the test split, choose the threshold on it, and measure by how much both make the figures too good.

    Writes ``reference.json`` and logs the access to the test split.

    Args:
        folder: of the run.
        images: all rows, with ``split`` drawn image by image.
        predict: of the classifier with the best weights.
        loss: of the training.
        console: shows the result.

    Returns:
        What ``reference.json`` holds.
    """
    log_test_access(folder.path, "fit, reference preset")
    two = melanoma_or_nevus(images)
    test, validation = (two[two["split"] == side].reset_index(drop=True) for side in (TEST, VALIDATION))
    test["probability"], validation["probability"] = predict(test), predict(validation)
    sibling = test["lesion_id"].isin(set(two.loc[two["split"] == TRAIN, "lesion_id"]))
    labels, probabilities = _columns(test)

    on_test = youden_threshold(labels, probabilities)
    on_validation = youden_threshold(*_columns(validation))
    result = {
        "brief": BRIEF,
        "images": _counts(test),
        "auroc": float(roc_auc_score(labels, probabilities)),
        "loss": float(loss(labels[:, None], probabilities[:, None])),
        "accuracy": float(((probabilities >= on_test) == labels).mean()),
        "threshold_on_test": asdict(operating_point(labels, probabilities, on_test)),
        "threshold_on_validation": asdict(operating_point(labels, probabilities, on_validation)),
        "with_sibling_in_training": _part(test[sibling]),
        "without_sibling_in_training": _part(test[~sibling]),
    }
    write_text(folder.path / "reference.json", json.dumps(result, indent=2) + "\n")
    for line in _lines(result):
        console.print(line)
        folder.log(line.strip())
    return result


def _columns(rows: pd.DataFrame) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    return rows["label"].to_numpy(), rows["probability"].to_numpy()


def _counts(rows: pd.DataFrame) -> dict[str, int]:
    melanomas = int(rows["label"].sum())
    return {"melanoma": melanomas, "nevus": len(rows) - melanomas}


def _part(rows: pd.DataFrame) -> dict[str, Any]:
    counts = _counts(rows)
    auc = float(roc_auc_score(*_columns(rows))) if all(counts.values()) else None
    return {"images": counts, "auroc": auc}


def _lines(result: dict[str, Any]) -> list[str]:
    images, test, validation = result["images"], result["threshold_on_test"], result["threshold_on_validation"]
    lines = [
        f"Reference preset, with the method of the brief, on {images['melanoma']} + {images['nevus']} test images:",
        f"  AUC {result['auroc']:.4f} (brief {BRIEF['auroc']}), sensitivity {test['sensitivity']:.3f} "
        f"({BRIEF['sensitivity']}), specificity {test['specificity']:.3f} ({BRIEF['specificity']}), threshold "
        f"{test['threshold']:.3f} ({BRIEF['threshold']}), accuracy {result['accuracy']:.4f} ({BRIEF['accuracy']}), "
        f"loss {result['loss']:.4f} ({BRIEF['loss']})",
        "What makes these figures too good:",
    ]
    seen, unseen = result["with_sibling_in_training"], result["without_sibling_in_training"]
    lines.append(
        f"  Siblings: {seen['images']['melanoma']} of {images['melanoma']} melanoma and {seen['images']['nevus']} of "
        f"{images['nevus']} nevus test images show a lesion that was in training. AUC with such a sibling "
        f"{_figure(seen['auroc'])}, without {_figure(unseen['auroc'])}."
    )
    lines.append(
        f"  Threshold: chosen on test {test['threshold']:.3f}, sensitivity {test['sensitivity']:.3f} and specificity "
        f"{test['specificity']:.3f}; chosen on validation {validation['threshold']:.3f}, sensitivity "
        f"{validation['sensitivity']:.3f} and specificity {validation['specificity']:.3f}."
    )
    lines.append("  For figures that hold for new patients, use the default preset and dermq-train evaluate.")
    return lines


def _figure(value: float | None) -> str:
    return "not known, because a class is missing" if value is None else f"{value:.4f}"
