"""The two engines of a model that is judged: Keras', which trained it, and the one that workers run."""

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import pandas as pd

from trainer.evaluation.engine_parity import Floats, Scorer, compare, converted_scorer
from trainer.evaluation.robustness import stress
from trainer.evaluation.trained_run import Frozen
from trainer.networks.minibatches import in_parts
from trainer.networks.openvino_conversion import require_tensorflow
from worker.images.preprocess import Preprocessing
from worker.inference.bundle import Bundle, Calibration, PolicyThreshold
from worker.inference.engines import Engine, load_engine


@dataclass(frozen=True, kw_only=True)
class Engines:
    """Both, with what the model has frozen.

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
    served: Scorer
    other: Scorer
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
        """What changes of the images do to the served engine's flags, as `trainer.evaluation.robustness.stress` has it.

        Args:
            images: rows with ``label``, ``lesion_id`` and ``path``.
        """
        return stress(
            images,
            lambda changed: self.calibration.apply(self.served(changed)),
            self.preprocessing,
            self.thresholds,
        )


def run_engines(frozen: Frozen, served: Scorer | None = None, label: str = "") -> Engines:
    """Those of a run, whose figures are by Keras.

    Args:
        frozen: the run.
        served: that of its bundle; without, the model is converted here.
        label: of that engine.
    """
    if served is None:
        served, label = converted_scorer(frozen.model, frozen.config.size), "OpenVINO, converted for this report"
    return Engines(
        label=label,
        served=served,
        other=served,
        figures_served=False,
        calibration=frozen.calibration,
        thresholds=frozen.thresholds,
        preprocessing=frozen.preprocessing,
    )


def bundle_engines(bundle: Bundle, service: Engine) -> Engines:
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


def _raw(engine: Engine) -> Scorer:
    def score(inputs: npt.NDArray[Any]) -> Floats:
        return in_parts(lambda part: engine.infer(part).probability, inputs)

    return score
