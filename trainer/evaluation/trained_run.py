"""A finished run: its model, with calibration and thresholds from its validation images."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pandas as pd

from trainer.config import RunConfig
from trainer.data.load_images import load_images
from trainer.data.preprocessing import preprocessing_of
from trainer.errors import MissingError
from trainer.metrics.seven_classes import probability_columns
from trainer.networks.converted import PredictOutputs, load_converted
from trainer.networks.heads import head_of, with_all_outputs
from trainer.networks.minibatches import predict_in_batches
from trainer.networks.predict import PREDICT_BATCH, traced
from trainer.run_folder import RunFolder
from trainer.thresholds.policies import Policies, fit_policies_on_validation
from worker.images.preprocess import Preprocessing
from worker.inference.bundle import Calibration, PolicyThreshold


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """A finished run, loaded for an evaluation."""

    config: RunConfig
    model: keras.Model
    calibration: Calibration
    policies: Policies
    #: The converted network in the precision that the run is served in. None: Keras predicts.
    served: PredictOutputs | None = None

    @property
    def preprocessing(self) -> Preprocessing:
        """How an image becomes the model's input."""
        return preprocessing_of(self.config)

    @property
    def thresholds(self) -> dict[str, PolicyThreshold]:
        """The numbers of each policy."""
        return self.policies.thresholds

    def score(self, images: pd.DataFrame) -> tuple[pd.DataFrame, npt.NDArray[np.uint8]]:
        """Score images in the precision that the run is served in, or with the Keras model.

        Args:
            images: rows with ``path``.

        Returns:
            The rows with ``raw_probability``, ``probability`` (calibrated), ``ita`` (degrees) and, with seven classes,
            `trainer.metrics.seven_classes.probability_columns`; and the inputs.
        """
        loaded = load_images([Path(path) for path in images["path"]], self.preprocessing)
        raw, *classes = predict_in_batches(self._infer, loaded.inputs, PREDICT_BATCH).T
        scored = images.assign(raw_probability=raw, probability=self.calibration.apply(raw), ita=loaded.ita)
        return scored.assign(**dict(zip(probability_columns(), classes, strict=False))), loaded.inputs

    def _infer(self, inputs: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """Probability of melanoma against nevus, and with seven classes that of each diagnosis, (n, 1) or (n, 8)."""
        if self.served is not None:
            return self.served(inputs)
        return self.infer_with_keras(inputs)

    def infer_with_keras(self, inputs: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """The same by the Keras model."""
        outputs = self._step(inputs)
        parts = [outputs[name] for name in ("probability", "class_probabilities") if name in outputs]
        return np.concatenate(parts, axis=1).astype(np.float64)

    def evidence(self, inputs: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Heat maps by the Keras model, (n, height, width): see `worker.inference.evidence`.

        Args:
            inputs: (n, size, size, 3), uint8, RGB.
        """
        head, found = head_of(self.model), []
        for start in range(0, len(inputs), PREDICT_BATCH):
            outputs = self._step(inputs[start : start + PREDICT_BATCH])
            pairs = zip(np.asarray(outputs["features"]), np.asarray(outputs["feature_map"]), strict=True)
            found += [head.evidence(*pair) for pair in pairs]
        return np.stack(found)

    @cached_property
    def _step(self) -> Callable[[npt.NDArray[np.uint8]], Any]:
        return traced(with_all_outputs(self.model))


def load_trained_run(run: Path) -> TrainedRun:
    """Load a run's model, and fit calibration and thresholds on its validation predictions.

    Raises:
        MissingError: the run is not finished; names the file.
    """
    for needed in ("config.json", "model.keras", "validation.csv"):
        if not (run / needed).is_file():
            if needed == "validation.csv" and RunFolder(run).finished:
                raise MissingError(
                    f"The run {run} has no validation images (--fold all) to choose thresholds on. Run `dermq-train "
                    f"crossfit {run} FOLD...` first."
                )
            raise MissingError(f"The run {run} has no {needed}: it is not finished. Run its `dermq-train fit` again.")
    calibration, policies = fit_policies_on_validation(run)
    model = keras.saving.load_model(run / "model.keras", compile=False)
    folder = RunFolder(run)
    in_precision = folder.in_precision()
    served = load_converted(folder.served / "model.xml", in_precision.precision) if in_precision else None
    return TrainedRun(
        config=RunConfig.read(run), model=model, calibration=calibration, policies=policies, served=served
    )
