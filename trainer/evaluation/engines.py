"""The two engines of a model that is subject: Keras', which trained it, and the one that workers run."""

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import pandas as pd

from trainer.evaluation.engine_parity import Floats, PredictInputs, compare, converted_model
from trainer.evaluation.robustness import measure_robustness
from trainer.evaluation.trained_run import TrainedRun
from trainer.networks.minibatches import predict_in_batches
from trainer.networks.openvino_conversion import require_tensorflow
from worker.images.preprocess import Preprocessing
from worker.inference.bundle import Bundle, Calibration, PolicyThreshold
from worker.inference.engines import InferenceEngine, load_engine


@dataclass(frozen=True, kw_only=True)
class Engines:
    """Both, with what the model has trained_run.

    Args:
        label: of the served engine, for the reader.
        served: what a worker says, before calibration.
        other: what that one of the two says by which the figures are not made.
        figures_served: whether the figures are made by the served engine: of a bundle they are, of a run they are not.
        calibration: of the model.
        thresholds: by policy.
        preprocessing: how an image becomes the model's input.
    """

    label: str
    served: PredictInputs
    other: PredictInputs
    figures_served: bool
    calibration: Calibration
    thresholds: dict[str, PolicyThreshold]
    preprocessing: Preprocessing

    def parity(self, scored: pd.DataFrame, other: Floats) -> dict[str, Any]:
        """How far the two are apart, as `trainer.evaluation.engine_parity.compare` has it, with the ``engine``'s name.

        Args:
            scored: rows with ``label`` and ``raw_probability``.
            other: (n,), what `other` says of the same images.
        """
        labels, raw = scored["label"].to_numpy(), scored["raw_probability"].to_numpy()
        reference, found = (other, raw) if self.figures_served else (raw, other)
        return {"engine": self.label, **compare(labels, reference, found, self.calibration, self.thresholds)}

    def robustness(self, images: pd.DataFrame) -> dict[str, Any]:
        """What changes of the images do to the served engine's flags, as
        `trainer.evaluation.robustness.measure_robustness` has it.

        Args:
            images: rows with ``label``, ``lesion_id`` and ``path``.
        """
        return measure_robustness(
            images,
            lambda changed: self.calibration.apply(self.served(changed)),
            self.preprocessing,
            self.thresholds,
        )


def run_engines(trained_run: TrainedRun, served: PredictInputs | None = None, label: str = "") -> Engines:
    """Those of a run, whose figures are by Keras.

    Args:
        trained_run: the run.
        served: that of its bundle; without, the model is converted here.
        label: of that engine.
    """
    if served is None:
        served, label = (
            converted_model(trained_run.model, trained_run.config.size),
            "OpenVINO, converted for this report",
        )
    return Engines(
        label=label,
        served=served,
        other=served,
        figures_served=False,
        calibration=trained_run.calibration,
        thresholds=trained_run.thresholds,
        preprocessing=trained_run.preprocessing,
    )


def bundle_engines(bundle: Bundle, service: InferenceEngine) -> Engines:
    """Those of a bundle, whose figures are by the engine that workers run.

    Args:
        bundle: verified.
        service: has its model loaded.

    Raises:
        RunError: Keras' backend is not TensorFlow.
    """
    require_tensorflow()
    return Engines(
        label=service.label,
        served=_raw(service),
        other=_raw(load_engine("tensorflow", bundle)),
        figures_served=True,
        calibration=bundle.manifest.calibration,
        thresholds=bundle.manifest.thresholds,
        preprocessing=bundle.preprocessing,
    )


def _raw(engine: InferenceEngine) -> PredictInputs:
    def score(inputs: npt.NDArray[Any]) -> Floats:
        return predict_in_batches(lambda part: engine.infer(part).probability, inputs)

    return score
