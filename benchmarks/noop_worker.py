"""`dermq worker` without images and inference, for benchmarks of queue and SQL."""

import os
import time
from collections.abc import Sequence

from db.claims import WaitingImage
from db.outcomes import Outcome, Scored
from db.status import TriageFlag
from worker.cli import main
from worker.scoring import chunk
from worker.scoring.batch import PreparedBatch
from worker.scoring.loaded_model import LoadedModel, ModelCache

#: Seconds to sleep for each image.
_SECONDS = float(os.environ.get("NOOP_SECONDS", "0"))


class _Engine:
    label = "no-op"


def prepare_nothing(images: Sequence[WaitingImage], *_: object) -> PreparedBatch:
    """One outcome for each image, without reading it."""
    time.sleep(_SECONDS * len(images))
    outcomes: list[Outcome] = [
        Scored(
            image_id=image.id,
            image_sha256=f"{image.id:064d}",
            raw_probability=0.25,
            probability=0.25,
            flag=TriageFlag.LOWER_PRIORITY,
        )
        for image in images
    ]
    return PreparedBatch(outcomes=outcomes, ready=[], copies={})


def load_nothing(_cache: ModelCache, _sha256: str) -> LoadedModel:
    """A model that only has a name."""
    return LoadedModel(bundle=None, engine=_Engine(), gate=None)  # type: ignore[arg-type]


if __name__ == "__main__":
    setattr(chunk, "prepare_images", prepare_nothing)  # noqa: B010 - a stub
    setattr(ModelCache, "model_for", load_nothing)  # noqa: B010
    main()
