"""A verified bundle with its loaded engine and gates: what a worker process scores with."""

import math
from dataclasses import dataclass
from pathlib import Path

from worker.errors import BundleError, EngineError
from worker.inference.bundle import Bundle, load_bundle, logit
from worker.inference.engines import EngineName, InferenceEngine, load_engine
from worker.inference.evidence import Head
from worker.inference.quality_gate import QualityGate
from worker.logging import get_logger

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A verified bundle, the engine that runs its model, its gates, and its head for evidence maps, if it has one."""

    bundle: Bundle
    engine: InferenceEngine
    gate: QualityGate
    head: Head | None = None

    def raw_probability_of(self, calibrated: float) -> float:
        """The network's output that is calibrated to a probability; a little less, so that none is lost to rounding."""
        calibration = self.bundle.manifest.calibration
        odds = (logit(calibrated) - calibration.intercept) / calibration.slope
        return 1 / (1 + math.exp(min(-odds, 700))) - 1e-6

    @classmethod
    def load(cls, bundle: Bundle, engine: EngineName) -> "LoadedModel":
        """Load everything that scoring needs of a verified bundle.

        Raises:
            BundleError: a file was changed since, or is invalid.
            EngineError: the engine cannot load the model, or computes in another precision than the bundle.
        """
        precision = bundle.manifest.precision
        if engine == "tensorflow" and precision != "float32":
            raise EngineError(
                f"The bundle {bundle.manifest.name} {bundle.manifest.version} computes in {precision}, and TensorFlow "
                "in float32: its thresholds were chosen on other outputs. Set DERMQ_BUNDLE to the float32 bundle "
                "beside it, or score with DERMQ_ENGINE=openvino."
            )
        file = bundle.manifest.head
        head = None if file is None else Head.from_bytes(bundle.read(file))
        return cls(bundle=bundle, engine=load_engine(engine, bundle), gate=QualityGate.load(bundle), head=head)


class ModelCache:
    """Loads the model at the first call in this process and keeps it.

    Never call it in a process that will fork: an engine that has run does not survive a fork.

    Args:
        folder: of this worker's bundle.
        engine: which engine to load.
    """

    def __init__(self, folder: Path, engine: EngineName) -> None:
        self._folder, self._engine = folder, engine
        self._model: LoadedModel | None = None

    def model_for(self, sha256: str) -> LoadedModel:
        """The model for a job's bundle.

        Args:
            sha256: of the bundle that the job was submitted with.

        Raises:
            BundleError: this worker has another bundle, or a damaged one.
            EngineError: the engine cannot load it.
        """
        if self._model is None or self._model.bundle.sha256 != sha256:
            bundle = load_bundle(self._folder)
            if bundle.sha256 != sha256:
                raise BundleError(
                    f"The job was submitted with the bundle {sha256[:12]}…, but this worker has {bundle.sha256[:12]}… "
                    f"({bundle.manifest.name} {bundle.manifest.version}). Set DERMQ_BUNDLE of the worker to the job's "
                    "bundle, or cancel the job and submit it again."
                )
            self._model = LoadedModel.load(bundle, self._engine)
            log.info("engine loaded", bundle=sha256[:12], engine=self._model.engine.label)
        return self._model
