"""One evaluation of a synthetic run, its report page and its model card."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from trainer.augmentation.perturbations import PERTURBATIONS
from trainer.card.model_card import card_of_run
from trainer.config import RunConfig
from trainer.data.diagnoses import DIAGNOSES
from trainer.evaluation.robustness import measure_robustness, other_diagnoses
from trainer.metrics.assess import assess
from trainer.metrics.missed import missed_melanomas
from trainer.report.schema import Report
from trainer.report.write import write_report
from trainer.run_folder import METRICS_NAME
from trainer.run_records import RunDescription, RunOrigin, TrainingData
from worker.images.opencv import cv2
from worker.images.preprocess import Preprocessing
from worker.inference.bundle import Calibration, PolicyThreshold
from worker.inference.metrics import BundleMetrics
from worker.synthetic.lesion import draw_lesion

POLICIES = {
    "youden": PolicyThreshold(threshold=0.4, borderline_threshold=0.3, sensitivity=0.9, specificity=0.8),
    "sensitivity:0.90": PolicyThreshold(threshold=0.2, borderline_threshold=0.1, sensitivity=0.95, specificity=0.6),
}


def draw_images(folder: Path) -> pd.DataFrame:
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


def synthetic_report(images: pd.DataFrame) -> dict[str, Any]:
    """What `dermq-train evaluate` writes into report.json, of these images."""

    def size(lesions: int, count: int) -> dict[str, int]:
        return {"lesions": lesions, "images": count}

    side = {"all": size(30, 40), "mel": size(10, 20), "nv": size(20, 20)}
    parity = {name: {"agreement": 0.975, "differ": 1} for name in POLICIES}
    config = RunConfig(backbone="efficientnet-lite0", size=64, seed=5, epochs=3)
    report = {
        "kind": "test",
        "created": "2026-11-23T10:00:00+00:00",
        "seconds": 3,
        "subject": {
            "name": "synthetic",
            "backbone": config.backbone,
            "size": config.size,
            "classes": "two",
            "split_sha256": "a" * 64,
            "split_kind": "lesion-disjoint",
            "calibration": Calibration(method="platt", slope=1.0, intercept=0.0),
            "test_accesses": ["2026-11-23T10:00:00+00:00 evaluate"],
            "origin": RunOrigin(run="synthetic", config=config, weights_from="a package"),
        },
        "policies": POLICIES,
        "refused_policies": {"sensitivity:0.95": "10 melanoma lesions are too few."},
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
        "seeds": {"runs": [{"run": "synthetic", "seed": 5, "figures": {}}], "figures": {}},
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
    return Report.model_validate(report).model_dump(mode="json")


def write_page(report: dict[str, Any], folder: Path, images: pd.DataFrame | None = None) -> str:
    """Write the report page into the folder and read it, with plain spaces; with the images' pictures if given."""
    paths = {} if images is None else {str(row.image_id): Path(str(row.path)) for row in images.itertuples()}
    write_report(Report.model_validate(report), folder, paths)
    return (folder / "report.html").read_text().replace("\N{NO-BREAK SPACE}", " ")


def write_card(report: dict[str, Any], folder: Path) -> str:
    """Write an evaluated run into the folder, and its model card."""
    (folder / "report.json").write_text(json.dumps(report))
    found = Report.model_validate(report)
    figures = found.assessment.images
    metrics = BundleMetrics(
        **dict(found.assessment.counts),
        split="test, lesion-disjoint, single pass",
        intervals="95%",
        auroc=figures.auroc,
        auprc=figures.auprc,
        brier=found.assessment.calibration.after.brier,
        policies={
            name: {
                "threshold": policy.threshold,
                "sensitivity": policy.sensitivity,
                "specificity": policy.specificity,
                "missed_melanoma_images": policy.missed,
            }
            for name, policy in figures.policies.items()
        },
    )
    (folder / METRICS_NAME).write_text(metrics.model_dump_json())
    origin = found.subject.origin
    assert origin is not None
    origin.config.write(folder)
    described = RunDescription(
        begun="2026-11-22T10:00:00+00:00",
        recipe=3,
        split_sha256="a" * 64,
        data=TrainingData(images=160, sha256="b" * 64),
        weights_from=origin.weights_from,
        teachers=origin.teachers,
        continues_from=origin.continues_from,
        versions={},
    )
    (folder / "run.json").write_text(described.model_dump_json())
    return card_of_run(folder)
