"""Who is subject: a run, by its Keras model, or a bundle, as a worker runs it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from trainer.data.ham10000 import DatasetError
from trainer.data.load_images import load_images
from trainer.data.splits import split_kind
from trainer.evaluation.test_access_log import read_test_accesses
from trainer.metrics.seven_classes import probability_columns
from trainer.networks.minibatches import predict_in_batches
from trainer.thresholds.policies import Policies
from worker.inference.bundle import MANIFEST_NAME, Bundle
from worker.inference.engines import InferenceEngine, load_engine

# It imports TensorFlow, which takes ten seconds; bad labels are told before.
if TYPE_CHECKING:
    from trainer.evaluation.trained_run import TrainedRun


#: Images that are decoded at once: 0.8 GB of them at 224 pixels.
_PART = 5_000


@dataclass(frozen=True, kw_only=True)
class EvaluationSubject:
    """A model with what it has trained_run.

    Args:
        described: what a report says of it.
        policies: on calibrated probabilities.
        score: takes rows with ``path`` and gives them as `trainer.evaluation.trained_run.TrainedRun.score` does, with
            the inputs.
    """

    described: dict[str, Any]
    policies: Policies
    score: Callable[[pd.DataFrame], tuple[pd.DataFrame, npt.NDArray[np.uint8]]]


def is_bundle(folder: Path) -> bool:
    """Whether a folder is a bundle's, and not a run's."""
    return (folder / MANIFEST_NAME).is_file()


def require_run_or_bundle(folder: Path) -> None:
    """Refuse what is neither.

    Raises:
        FileNotFoundError: says whether there is such a folder.
    """
    if not is_bundle(folder) and not (folder / "config.json").is_file():
        what = "which is neither a bundle (with bundle.json) nor a run (with config.json)"
        raise FileNotFoundError(
            f"Received: {folder}, {what if folder.exists() else 'which does not exist'}. Expected: the folder of a run "
            "or of a bundle."
        )


def run_subject(run: Path, trained_run: "TrainedRun") -> EvaluationSubject:
    """A finished run, of which `trainer.evaluation.trained_run.load_trained_run` gave what is trained_run."""
    return EvaluationSubject(
        described=describe_run(run, trained_run), policies=trained_run.policies, score=trained_run.score
    )


def load_service(bundle: Bundle) -> InferenceEngine:
    """The engine that a worker runs, with a bundle's model, on two threads."""
    return load_engine("openvino", bundle, threads=2)


def bundle_subject(bundle: Bundle, engine: InferenceEngine | None = None) -> EvaluationSubject:
    """A bundle, as a worker runs it.

    Args:
        bundle: verified.
        engine: with the bundle's model, where there is one already.
    """
    manifest = bundle.manifest
    engine = engine or load_service(bundle)
    columns = ["raw_probability"] + (list(probability_columns()) if len(manifest.classes) > 2 else [])

    def infer(inputs: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        found = engine.infer(inputs)
        classes = [] if found.class_probabilities is None else [found.class_probabilities]
        return np.column_stack([found.probability, *classes])

    def score(images: pd.DataFrame) -> tuple[pd.DataFrame, npt.NDArray[np.uint8]]:
        look = load_images([Path(path) for path in images["path"]], bundle.preprocessing)
        found = dict(zip(columns, predict_in_batches(infer, look.inputs).T, strict=True))
        probability = manifest.calibration.apply(found["raw_probability"])
        return images.assign(**found, probability=probability, ita=look.ita), look.inputs

    described = {
        "name": f"{manifest.name} {manifest.version}",
        "bundle_sha256": bundle.sha256,
        "config": {
            "backbone": manifest.backbone,
            "size": manifest.input.size,
            "classes": "seven" if len(manifest.classes) > 2 else "two",
        },
        "split_sha256": manifest.split_manifest_sha256,
        "calibration": manifest.calibration.model_dump(),
        "recalibrated": manifest.recalibration is not None,
        "folds": manifest.metrics.get("crossfit", {}).get("folds", []),
        "test_accesses": [],
    }
    return EvaluationSubject(
        described=described, policies=Policies(thresholds=manifest.thresholds, refused={}), score=score
    )


def score_in_batches(subject: EvaluationSubject, images: pd.DataFrame, part: int = _PART) -> pd.DataFrame:
    """Score images of which more may be given than fit into memory when they are decoded.

    Args:
        subject: a run or a bundle.
        images: rows with ``path``.
        part: images at once.

    Returns:
        The rows as `EvaluationSubject.score` gives them, in their order.

    Raises:
        DatasetError: files cannot be decoded; those of every part are named.
    """
    scored, faults = [], []
    for start in range(0, len(images), part):
        try:
            scored.append(subject.score(images.iloc[start : start + part])[0])
        except DatasetError as error:
            faults.append(str(error))
    if faults:
        raise DatasetError("\n".join(faults))
    return pd.concat(scored)


def describe_run(run: Path, trained_run: "TrainedRun") -> dict[str, Any]:
    """What a report says of the run it is about; no path of this machine."""
    from trainer.evaluation.crossfit import folds_of
    from trainer.networks.backbones import BACKBONES

    recorded = run / "run.json"
    begun = json.loads(recorded.read_text()) if recorded.exists() else {}
    return {
        "name": run.name,
        "config": {name: getattr(trained_run.config, name) for name in trained_run.config.__dataclass_fields__},
        "split_sha256": str(json.loads((run / "split.json").read_text())["sha256"]),
        "split_kind": split_kind(run),
        "weights_from": begun.get("weights_from") or BACKBONES[trained_run.config.backbone].weights_from,
        "continues_from": begun.get("continues_from"),
        "averaged": begun.get("averaged", []),
        "teachers": begun.get("teachers", []),
        "folds": folds_of(run),
        "calibration": trained_run.calibration.model_dump(),
        "test_accesses": read_test_accesses(run),
    }
