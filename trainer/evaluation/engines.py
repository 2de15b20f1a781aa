"""The two engines of a model under evaluation: Keras, which trained it, and the one that workers use."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from trainer.evaluation.engine_parity import Floats, PredictInputs, compare, converted_model
from trainer.evaluation.heat_maps import measure_heat_maps
from trainer.evaluation.robustness import measure_robustness
from trainer.evaluation.trained_run import TrainedRun
from trainer.metrics.figures import EngineParity, HeatMaps, Robustness
from trainer.networks.minibatches import predict_in_batches
from trainer.networks.openvino_conversion import require_tensorflow
from trainer.networks.predict import PREDICT_BATCH
from worker.images.preprocess import Preprocessing
from worker.inference.bundle import Bundle, Calibration, PolicyThreshold
from worker.inference.engines import InferenceEngine, load_engine
from worker.inference.evidence import Head


@dataclass(frozen=True, kw_only=True)
class Engines:
    """Both engines of a model, with its calibration and thresholds.

    Args:
        label: of the worker's engine, for the reader.
        worker: the worker's engine, before calibration.
        other: the engine that the figures are not made with.
        figures_by_worker: whether the figures are made with the worker's engine. Those of a bundle are; those of a run
            are made with Keras.
        calibration: of the model.
        thresholds: by policy.
        preprocessing: how an image becomes the model's input.
        evidence: gives the heat maps of inputs, (n, height, width). None of a bundle without a head.
    """

    label: str
    worker: PredictInputs
    other: PredictInputs
    figures_by_worker: bool
    calibration: Calibration
    thresholds: dict[str, PolicyThreshold]
    preprocessing: Preprocessing
    evidence: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]] | None = None

    def parity(self, scored: pd.DataFrame, other: Floats) -> EngineParity:
        """How far the two are apart.

        Args:
            scored: rows with ``label`` and ``raw_probability``.
            other: (n,), what `other` predicts for the same images.
        """
        labels, raw = scored["label"].to_numpy(), scored["raw_probability"].to_numpy()
        reference, found = (other, raw) if self.figures_by_worker else (raw, other)
        return compare(self.label, labels, reference, found, self.calibration, self.thresholds)

    def robustness(self, images: pd.DataFrame) -> Robustness:
        """What changes of the images do to the flags of the worker's engine.

        Args:
            images: rows with ``label``, ``lesion_id`` and ``path``.
        """
        return measure_robustness(
            images,
            lambda changed: self.calibration.apply(self.worker(changed)),
            self.preprocessing,
            self.thresholds,
        )

    def heat_maps(self, scored: pd.DataFrame, threshold: float) -> HeatMaps | None:
        """Whether the heat maps show what the probability rests on, see `trainer.evaluation.heat_maps`.

        Args:
            scored: rows with ``label``, ``lesion_id``, ``path`` and ``probability``.
            threshold: of the first policy.
        """
        if self.evidence is None:
            return None
        return measure_heat_maps(
            scored,
            self.preprocessing,
            self.evidence,
            lambda changed: self.calibration.apply(self.worker(changed)),
            threshold,
        )


def run_engines(trained_run: TrainedRun, worker: PredictInputs | None = None, label: str = "") -> Engines:
    """The engines of a run. Its figures are made with Keras, or in the precision that the run is served in.

    Args:
        trained_run: the run.
        worker: the engine of its bundle. Without one, the model is converted.
        label: of that engine.
    """
    if worker is None and (served := trained_run.served) is not None:
        return Engines(
            label="OpenVINO, in the precision that the run is served in",
            worker=lambda inputs: served(inputs)[:, 0],
            other=lambda inputs: predict_in_batches(trained_run.infer_with_keras, inputs, PREDICT_BATCH)[:, 0],
            figures_by_worker=True,
            calibration=trained_run.calibration,
            thresholds=trained_run.thresholds,
            preprocessing=trained_run.preprocessing,
            evidence=trained_run.evidence,
        )
    if worker is None:
        worker = converted_model(trained_run.model, trained_run.config.size)
        label = "OpenVINO, converted for this report"
    return Engines(
        label=label,
        worker=worker,
        other=worker,
        figures_by_worker=False,
        calibration=trained_run.calibration,
        thresholds=trained_run.thresholds,
        preprocessing=trained_run.preprocessing,
        evidence=trained_run.evidence,
    )


def bundle_engines(bundle: Bundle, worker: InferenceEngine) -> Engines:
    """The engines of a bundle. Its figures are made with the engine that workers use.

    Args:
        bundle: verified.
        worker: with the bundle's model.

    Raises:
        RunError: Keras' backend is not TensorFlow.
    """
    require_tensorflow()
    return Engines(
        label=worker.label,
        worker=_uncalibrated(worker),
        other=_uncalibrated(load_engine("tensorflow", bundle)),
        figures_by_worker=True,
        calibration=bundle.manifest.calibration,
        thresholds=bundle.manifest.thresholds,
        preprocessing=bundle.preprocessing,
        evidence=_evidence(bundle, worker),
    )


def _evidence(
    bundle: Bundle, engine: InferenceEngine
) -> Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]] | None:
    if bundle.manifest.head is None:
        return None
    head = Head.from_bytes(bundle.read(bundle.manifest.head))

    def maps(inputs: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        found = engine.infer(inputs, features=True, maps_from=0.0)
        pairs = zip(found.features if found.features is not None else (), found.feature_maps, strict=True)
        return np.stack([head.evidence(features, each) for features, each in pairs if each is not None])

    return maps


def _uncalibrated(engine: InferenceEngine) -> PredictInputs:
    def predict(inputs: npt.NDArray[np.uint8]) -> Floats:
        return predict_in_batches(lambda part: engine.infer(part).probability, inputs)

    return predict
