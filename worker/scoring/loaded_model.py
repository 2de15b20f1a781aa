"""A verified bundle with its loaded engine: what a worker process scores with."""

from dataclasses import dataclass
from pathlib import Path

from db.status import UngradableReason
from worker.errors import BundleError
from worker.images.decode import RGBImage
from worker.images.out_of_distribution import Appearance
from worker.images.quality import measure_quality
from worker.inference.bundle import Bundle, load_bundle
from worker.inference.engines import Engine, EngineName, load_engine
from worker.inference.triage import why_ungradable, why_unlike_dermoscopy
from worker.logging import get_logger

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """A bundle and the engine that runs its model.

    Args:
        bundle: verified.
        engine: runs its model.
        appearance: what its training images look like; None where the bundle has no gate for what is no dermoscopy.
    """

    bundle: Bundle
    engine: Engine
    appearance: Appearance | None = None

    @classmethod
    def load(cls, bundle: Bundle, engine: EngineName) -> "Scorer":
        """Load what a verified bundle holds.

        Raises:
            BundleError: a file of it was changed since, or is not understood.
            EngineError: the engine cannot load it.
        """
        described = bundle.manifest.out_of_distribution
        appearance = None
        if described is not None and described.limit is not None:
            appearance = Appearance.from_bytes(bundle.read(described.file))
        return cls(bundle=bundle, engine=load_engine(engine, bundle), appearance=appearance)

    def why_ungradable(self, decoded: RGBImage, model_input: RGBImage) -> tuple[UngradableReason, str] | None:
        """Why an image goes to a human unjudged: the quality gate, and the one for what is no dermoscopy.

        Args:
            decoded: the image, (height, width, 3), uint8, RGB.
            model_input: the same as preprocessed, (size, size, 3), uint8, RGB.

        Returns:
            Reason and sentence, or None when it may be judged.
        """
        manifest = self.bundle.manifest
        if (poor := why_ungradable(measure_quality(decoded, model_input), manifest.quality)) is not None:
            return poor
        described = manifest.out_of_distribution
        if self.appearance is None or described is None or described.limit is None:
            return None
        return why_unlike_dermoscopy(self.appearance.distance(model_input), described.limit)


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
            self._scorer = Scorer.load(bundle, self._engine)
            log.info("engine loaded", bundle=sha256[:12], engine=self._scorer.engine.label)
        return self._scorer
