"""Scoring with an engine that the test controls, and a folder of pictures as a job."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sqlalchemy import Engine

from db.session import read
from db.worklist import OutcomeRow, outcomes_by_image
from tests.integration.databases import MadeJob, add_job
from worker.images.colour import RGBImage
from worker.inference.bundle import Bundle
from worker.inference.engines import Inference, InferenceEngine
from worker.inference.quality_gate import QualityGate
from worker.intake.scan_report import ScanReport
from worker.intake.sources.folder import walk_folder
from worker.scoring.chunk import ChunkLimits, score_chunk
from worker.scoring.loaded_model import LoadedModel
from worker.synthetic.lesion import draw_lesion

LIMITS = ChunkLimits(batch_size=2, lease_seconds=60, time_limit=300, max_file_bytes=10_000_000)
Images = npt.NDArray[np.uint8]


class FakeEngine:
    """The mean of an image is its probability; ``before`` is called with each batch."""

    label = "fake 1"

    def __init__(self, before: Callable[[Images], None] = lambda images: None) -> None:
        self.before, self.batches = before, list[int]()

    def infer(self, images: Images, *, features: bool = False, maps_from: float | None = None) -> Inference:
        self.before(images)
        self.batches.append(len(images))
        return Inference(probability=images.mean(axis=(1, 2, 3)) / 255)


def without_green(seed: int) -> RGBImage:
    """A picture that tests tell from the others even after preprocessing."""
    picture = draw_lesion(seed, width=300, height=240)
    picture[..., 1] = 0
    return picture


def is_without_green(images: Images) -> bool:
    return bool((images[..., 1].max(axis=(1, 2)) == 0).any())


def job_of(database: Engine, root: Path) -> MadeJob:
    """The folder as a job of one chunk."""
    return add_job(database, list(walk_folder(root, ScanReport())), root=str(root))


def score(
    database: Engine,
    made: MadeJob,
    bundle: Bundle,
    engine: InferenceEngine,
    *,
    stopping: Callable[[], bool] = lambda: False,
    limits: ChunkLimits = LIMITS,
) -> int | None:
    model = LoadedModel(bundle=bundle, engine=engine, gate=QualityGate.load(bundle))
    result = score_chunk(
        made.chunk_ids[0], database=database, model_for=lambda _: model, limits=limits, stopping=stopping
    )
    return None if result is None else result.images


def outcomes(database: Engine, made: MadeJob) -> dict[str, OutcomeRow]:
    return read(database, lambda c: {found.path: found for found in outcomes_by_image(c, made.job_id)})
