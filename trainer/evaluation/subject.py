"""The run or bundle under evaluation: a run predicts with its Keras model, a bundle as a worker does."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from trainer.data.load_images import load_images
from trainer.data.splits import split_kind
from trainer.data.test_access_log import read_test_accesses
from trainer.errors import DatasetError, MissingError
from trainer.metrics.seven_classes import probability_columns
from trainer.networks.minibatches import predict_in_batches
from trainer.report.schema import Subject
from trainer.run_folder import RunFolder
from trainer.thresholds.policies import Policies
from worker.inference.bundle import Bundle
from worker.inference.bundle_reference import MANIFEST_NAME
from worker.inference.engines import InferenceEngine, load_engine
from worker.inference.metrics import FoldRun

# It imports TensorFlow, which takes ten seconds. Mistakes in the labels are reported before.
if TYPE_CHECKING:
    from trainer.evaluation.trained_run import TrainedRun


#: Images that are decoded at once: 0.8 GB of them at 224 pixels.
_PART = 5_000


@dataclass(frozen=True, kw_only=True)
class EvaluationSubject:
    """A model with its policies.

    Args:
        described: for the report.
        policies: on calibrated probabilities.
        score: takes rows with ``path``. Gives the rows as `trainer.evaluation.trained_run.TrainedRun.score` does, and
            the model's inputs.
    """

    described: Subject
    policies: Policies
    score: Callable[[pd.DataFrame], tuple[pd.DataFrame, npt.NDArray[np.uint8]]]


def is_bundle(folder: Path) -> bool:
    """Whether a folder is a bundle, not a run."""
    return (folder / MANIFEST_NAME).is_file()


def require_run_or_bundle(folder: Path) -> None:
    """Refuse other folders.

    Raises:
        MissingError: says whether there is such a folder.
    """
    if is_bundle(folder) or (folder / "config.json").is_file():
        return
    if not folder.exists():
        raise MissingError(f"{folder} does not exist. Name the folder of a run or of a bundle.")
    raise MissingError(
        f"{folder} is neither a run (no config.json) nor a bundle (no {MANIFEST_NAME}). Name the folder of one."
    )


def run_subject(run: Path, trained_run: "TrainedRun") -> EvaluationSubject:
    """A finished run.

    Args:
        run: its folder.
        trained_run: loaded from it.
    """
    from trainer.evaluation.crossfit import folds_of

    config = trained_run.config
    described = Subject(
        name=run.name,
        backbone=config.backbone,
        size=config.size,
        classes=config.classes,
        split_sha256=RunFolder(run).split_sha256(),
        split_kind=split_kind(run),
        calibration=trained_run.calibration,
        test_accesses=tuple(read_test_accesses(run)),
        folds=folds_of(run),
        origin=RunFolder(run).origin(),
    )
    return EvaluationSubject(described=described, policies=trained_run.policies, score=trained_run.score)


def load_worker_engine(bundle: Bundle) -> InferenceEngine:
    """The engine that a worker uses, with a bundle's model, on two threads."""
    return load_engine("openvino", bundle, threads=2)


def bundle_subject(
    bundle: Bundle, engine: InferenceEngine, *, split_kind: str = "", test_accesses: tuple[str, ...] = ()
) -> EvaluationSubject:
    """A bundle, as a worker runs it.

    Args:
        bundle: verified.
        engine: with the bundle's model.
        split_kind: of the split that it is evaluated on, as in `trainer.data.splits`. Empty for other images.
        test_accesses: on that split.
    """
    manifest = bundle.manifest
    seven = len(manifest.classes) > 2
    columns = ["raw_probability", *(probability_columns() if seven else ())]

    def infer(inputs: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        found = engine.infer(inputs)
        classes = [] if found.class_probabilities is None else [found.class_probabilities]
        return np.column_stack([found.probability, *classes])

    def score(images: pd.DataFrame) -> tuple[pd.DataFrame, npt.NDArray[np.uint8]]:
        loaded = load_images([Path(path) for path in images["path"]], bundle.preprocessing)
        found = dict(zip(columns, predict_in_batches(infer, loaded.inputs).T, strict=True))
        probability = manifest.calibration.apply(found["raw_probability"])
        return images.assign(**found, probability=probability, ita=loaded.ita), loaded.inputs

    crossfit = manifest.metrics.crossfit
    described = Subject(
        name=f"{manifest.name} {manifest.version}",
        backbone=manifest.backbone,
        size=manifest.input.size,
        classes="seven" if seven else "two",
        split_sha256=manifest.split_manifest_sha256,
        split_kind=split_kind,
        calibration=manifest.calibration,
        test_accesses=test_accesses,
        folds=tuple(FoldRun(**{name: getattr(fold, name) for name in FoldRun.model_fields}) for fold in crossfit.folds)
        if crossfit
        else (),
        bundle_sha256=bundle.sha256,
        recalibrated=manifest.recalibration is not None,
    )
    return EvaluationSubject(
        described=described, policies=Policies(thresholds=manifest.thresholds, refused={}), score=score
    )


def score_in_batches(subject: EvaluationSubject, images: pd.DataFrame, part: int = _PART) -> pd.DataFrame:
    """Score more images than fit into memory decoded.

    Args:
        subject: a run or a bundle.
        images: rows with ``path``.
        part: images at once.

    Returns:
        The rows as `EvaluationSubject.score` gives them, in their order.

    Raises:
        DatasetError: files cannot be decoded; names those of every part.
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
