"""Open the sealed test split: predict it with a run's model and state how well it does.

Threshold and calibration come from validation. Every opening is logged in the run folder, because a test split that is
looked at while choosing is not one.
"""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from trainer.bootstrap import interval
from trainer.calibration import fit_platt
from trainer.canvas import load_inputs
from trainer.config import FitConfig
from trainer.fit import first_lesions, predict
from trainer.ham10000 import melanoma_or_nevus, read_ham10000
from trainer.splits import TEST, images_with_split
from trainer.threshold import operating_point, youden_band, youden_threshold
from worker.bundle import Calibration, PolicyThreshold
from worker.images.preprocess import Preprocessing

#: Seed of every resampling; fixed, so that a report can be made again.
_BOOTSTRAP_SEED = 20_260


def choose_on_validation(run: Path) -> tuple[Calibration, dict[str, PolicyThreshold]]:
    """Fit calibration and thresholds on a run's validation predictions.

    Args:
        run: the run folder, with ``validation.csv``.

    Returns:
        The calibration, and the numbers of each policy on calibrated probabilities.
    """
    validation = pd.read_csv(run / "validation.csv")
    labels = validation["label"].to_numpy()
    calibration = fit_platt(labels, validation["probability"].to_numpy())
    probabilities = calibration.apply(validation["probability"].to_numpy())
    point = operating_point(labels, probabilities, youden_threshold(labels, probabilities))
    band = youden_band(labels, probabilities, validation["lesion_id"].to_numpy(object), seed=_BOOTSTRAP_SEED)
    return calibration, {"youden": PolicyThreshold(borderline_from=band, **asdict(point))}


def evaluate(dataset: Path, run: Path) -> dict[str, Any]:
    """Predict the test split and write ``test.csv`` and ``metrics.json`` into the run folder.

    Args:
        dataset: the HAM10000 folder.
        run: the run folder.

    Returns:
        The metrics, as in ``metrics.json``.

    Raises:
        SplitError: the manifest was changed since the run began.
    """
    config = FitConfig.read(run)
    images = melanoma_or_nevus(images_with_split(read_ham10000(dataset), run))
    with (run / "test-openings.log").open("a") as log:
        log.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} evaluate\n")
    if config.limit:
        images = first_lesions(images, config.limit)
    test = images[images["split"] == TEST].reset_index(drop=True)
    classifier = keras.saving.load_model(run / "model.keras", compile=False)
    inputs = load_inputs([Path(path) for path in test["path"]], Preprocessing(size=config.size))
    test["raw_probability"] = predict(classifier, inputs)
    calibration, thresholds = choose_on_validation(run)
    test["probability"] = calibration.apply(test["raw_probability"].to_numpy())
    test.drop(columns="path").to_csv(run / "test.csv", index=False)
    metrics = measure(test, thresholds)
    (run / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    return metrics


def measure(test: pd.DataFrame, thresholds: dict[str, PolicyThreshold]) -> dict[str, Any]:
    """Metrics with lesion-clustered 95% intervals.

    Args:
        test: rows with ``label``, calibrated ``probability`` and ``lesion_id``.
        thresholds: frozen on validation.

    Returns:
        Counts, AUROC, AUPRC, Brier score, and sensitivity and specificity per policy.
    """
    labels, probabilities = test["label"].to_numpy(), test["probability"].to_numpy()
    lesions = test["lesion_id"].to_numpy(object)

    def with_interval(statistic: Any) -> dict[str, float]:
        return asdict(interval(statistic, lesions, labels, seed=_BOOTSTRAP_SEED))

    policies = {}
    for name, policy in thresholds.items():
        called = probabilities >= policy.threshold
        policies[name] = {
            "threshold": policy.threshold,
            "sensitivity": with_interval(lambda rows, c=called: float(c[rows][labels[rows] == 1].mean())),
            "specificity": with_interval(lambda rows, c=called: float((~c[rows][labels[rows] == 0]).mean())),
            "missed_melanoma_images": int((~called & (labels == 1)).sum()),
        }
    return {
        "split": "test, lesion-disjoint, single pass",
        "images": {"melanoma": int((labels == 1).sum()), "nevus": int((labels == 0).sum())},
        "lesions": {
            "melanoma": int(test.loc[labels == 1, "lesion_id"].nunique()),
            "nevus": int(test.loc[labels == 0, "lesion_id"].nunique()),
        },
        "auroc": with_interval(lambda rows: float(roc_auc_score(labels[rows], probabilities[rows]))),
        "auprc": with_interval(lambda rows: float(average_precision_score(labels[rows], probabilities[rows]))),
        "brier": with_interval(lambda rows: float(brier_score_loss(labels[rows], probabilities[rows]))),
        "policies": policies,
        "intervals": "95%, percentile, 1,000 resamples of whole lesions within each class",
        "mean_probability": float(np.mean(probabilities)),
    }
