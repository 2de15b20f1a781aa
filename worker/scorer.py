"""A verified bundle with its loaded engine: what a worker process scores with."""

from dataclasses import dataclass
from pathlib import Path

from worker.bundle import Bundle, load_bundle
from worker.engine import Engine, EngineName, load_engine
from worker.errors import BundleError
from worker.log import get_logger

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """A bundle and the engine that runs its model."""

    bundle: Bundle
    engine: Engine


class ScorerCache:
    """Loads at the first call in this process and keeps the scorer.

    Never call it in a process that will fork: an engine that has run does not survive a fork.

    Args:
        folder: of the bundle that this worker has.
        engine: which engine to load.
    """

    def __init__(self, folder: Path, engine: EngineName) -> None:
        self._folder, self._engine = folder, engine
        self._scorer: Scorer | None = None

    def scorer_for(self, sha256: str) -> Scorer:
        """The scorer for a job's bundle.

        Args:
            sha256: of the bundle that the job was submitted under.

        Raises:
            BundleError: this worker has another bundle, or a damaged one.
            EngineError: the engine cannot load it.
        """
        if self._scorer is None or self._scorer.bundle.sha256 != sha256:
            bundle = load_bundle(self._folder)
            if bundle.sha256 != sha256:
                raise BundleError(
                    f"The job was submitted under the bundle {sha256[:12]}…, this worker has {bundle.sha256[:12]}… "
                    f"({bundle.manifest.name} {bundle.manifest.version}). Give the worker the job's bundle by "
                    "DERMQ_BUNDLE, or submit the job again under the new one."
                )
            self._scorer = Scorer(bundle=bundle, engine=load_engine(self._engine, bundle))
            log.info("engine loaded", bundle=sha256[:12], engine=self._scorer.engine.label)
        return self._scorer
