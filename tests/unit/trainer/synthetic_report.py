"""One evaluation of a made-up run, its report page and its model card."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from trainer.augmentation.perturbations import PERTURBATIONS
from trainer.card.model_card import card_of_run
from trainer.data.ham10000 import DIAGNOSES
from trainer.evaluation.robustness import measure_robustness, other_diagnoses
from trainer.metrics.assess import assess
from trainer.metrics.missed import missed_melanomas
from trainer.report import write_report
from trainer.report.report_file import REPORT_FORMAT
from worker.images.opencv import cv2
from worker.images.preprocess import Preprocessing
from worker.inference.bundle import PolicyThreshold
from worker.synthetic.lesion import draw_lesion

POLICIES = {
    "youden": PolicyThreshold(threshold=0.4, borderline_threshold=0.3, sensitivity=0.9, specificity=0.8),
    "sensitivity:0.90": PolicyThreshold(threshold=0.2, borderline_threshold=0.1, sensitivity=0.95, specificity=0.6),
}


def make_up_images(folder: Path) -> pd.DataFrame:
    """Forty images of thirty lesions with files and scores."""
    chance = np.random.default_rng(6)
    labels = np.repeat([1, 0], 20)
    raw = 1 / (1 + np.exp(-chance.normal(np.where(labels == 1, 1.0, -1.0), 1.3)))
    rows = []
    for number in range(40):
        path = folder / f"ISIC_{number:04}.jpg"
        assert cv2.imwrite(str(path), draw_lesion(number, width=80, height=60))
        rows.append(
            {
                "image_id": path.stem,
                "lesion_id": f"HAM_{number // 2 if number < 20 else number:03}",
                "path": str(path),
                "dx": "mel" if number < 20 else "nv",
                "age": 50.0,
                "sex": "<b>male</b>",
                "localization": "back",
                "dataset": "rosendahl",
                "dx_type": "histo",
                "ita": 50.0,
            }
        )
    return pd.DataFrame(rows).assign(label=labels, raw_probability=raw, probability=raw)


def make_up_report(images: pd.DataFrame) -> dict[str, Any]:
    """What `dermq-train evaluate` writes into report.json, of these images."""

    def size(lesions: int, count: int) -> dict[str, int]:
        return {"lesions": lesions, "images": count}

    side = {"all": size(30, 40), "mel": size(10, 20), "nv": size(20, 20)}
    parity = {name: {"agreement": 0.975, "differ": 1} for name in POLICIES}
    return {
        "format": REPORT_FORMAT,
        "kind": "test",
        "created": "2026-11-23T10:00:00+00:00",
        "seconds": 3,
        "run": {
            "name": "made-up",
            "config": {
                "backbone": "efficientnet-lite0",
                "size": 64,
                "classes": "two",
                "seed": 5,
                "epochs": 3,
                "focal_gamma": 2.0,
                "focal_alpha": 0.25,
                "head_epochs": 0,
                "unfreeze_last": -1,
                "batch_normalisation": "frozen",
                "learning_rate": 5e-4,
                "ema_momentum": 0.99,
                "weight_decay": 0.01,
                "samples_per_epoch": 3600,
                "sampling_power": 0.5,
                "label_smoothing": 0.05,
            },
            "split_sha256": "a" * 64,
            "split_kind": "lesion-disjoint",
            "weights_from": "a package",
            "test_accesses": ["2026-11-23T10:00:00+00:00 evaluate"],
        },
        "policies": {name: policy.model_dump() for name, policy in POLICIES.items()},
        "refused_policies": {"sensitivity:0.95": "Received: 10 melanoma lesions. Expected: at least 59."},
        "flow": {
            "all": size(120, 160),
            "other_diagnoses": size(30, 40),
            "two_classes": size(90, 120),
            "left_out_by_limit": 0,
            "splits": {"train": side, "validation": side, "test": side},
            "training": {dx: size(11, 12) for dx in DIAGNOSES},
        },
        "leakage": {
            "sides": ["train", "validation"],
            "compared": {"test": 40, "others": 80},
            "lesions": 0,
            "files": 0,
            "near_duplicates": 1,
            "pairs": [["ISIC_0001", "ISIC_9999"]],
            "clean": False,
        },
        "assessment": assess(images, POLICIES, resamples=40),
        "missed": missed_melanomas(images, POLICIES),
        "seeds": {"runs": [{"run": "made-up", "seed": 5, "figures": {}}], "figures": {}},
        "sources_left_out": [],
        "engine_parity": {
            "engine": "OpenVINO, converted for this report",
            "images": 40,
            "largest": 0.004,
            "mean": 0.0001,
            "auroc_difference": 0.0,
            "policies": parity,
        },
        "seven_classes": None,
        "other_diagnoses": other_diagnoses(images.assign(dx=["bcc"] * 20 + ["df"] * 20), POLICIES),
        "robustness": measure_robustness(
            images,
            lambda inputs: inputs.mean(axis=(1, 2, 3)) / 255,
            Preprocessing(size=32),
            POLICIES,
            perturbations=PERTURBATIONS[-2:],
            resamples=20,
        ),
    }


def write_page(report: dict[str, Any], folder: Path, images: pd.DataFrame | None = None) -> str:
    """Write the report page into the folder and read it, with plain spaces; with the images' pictures if given."""
    paths = {} if images is None else {row.image_id: Path(str(row.path)) for row in images.itertuples()}
    write_report(report, folder, paths)  # type: ignore[arg-type]
    return (folder / "report.html").read_text().replace("\N{NO-BREAK SPACE}", " ")


def write_card(report: dict[str, Any] | None, folder: Path) -> str:
    """Write report.json and metrics.json into the folder, and the model card of that run."""
    (folder / "report.json").write_text(json.dumps(report))
    figures = report["assessment"]["images"] if report else {}
    metrics = {
        "split": "test, lesion-disjoint, single pass",
        "intervals": "95%",
        **report["assessment"]["counts"],  # type: ignore[index]
        "auroc": figures["auroc"],
        "auprc": figures["auprc"],
        "brier": report["assessment"]["calibration"]["after"]["brier"],  # type: ignore[index]
        "policies": {
            name: {**policy, "missed_melanoma_images": policy["missed"]} for name, policy in figures["policies"].items()
        },
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return card_of_run(folder)
