"""What hair, rulers, ink, rims, blur and compression do to a run on its validation images; test stays sealed."""

import json
from pathlib import Path
from typing import Any

from trainer.atomic import write_text
from trainer.engine_parity import converted_scorer
from trainer.evaluate import load_frozen
from trainer.fit import first_lesions
from trainer.ham10000 import melanoma_or_nevus
from trainer.real_images import read_images_of
from trainer.splits import VALIDATION
from trainer.stress import stress


def stress_validation(dataset: Path, run: Path) -> dict[str, Any]:
    """Change validation images, score them again, and write ``robustness.json``: for choosing between recipes.

    Args:
        dataset: the HAM10000 folder.
        run: a run folder after `trainer.fit.fit`.

    Returns:
        As `trainer.stress.stress`, at the run's own thresholds, which were chosen on the unchanged images.

    Raises:
        FileNotFoundError: the run is not finished.
        RunError: it was begun with other data.
        SplitError: its manifest was changed.
    """
    frozen = load_frozen(run)
    images = read_images_of(run, dataset)
    images = first_lesions(images, frozen.config.limit) if frozen.config.limit else images
    score = converted_scorer(frozen.model, frozen.config.size)
    found = stress(
        melanoma_or_nevus(images[images["split"] == VALIDATION]),
        lambda changed: frozen.calibration.apply(score(changed)),
        frozen.preprocessing,
        frozen.thresholds,
    )
    write_text(run / "robustness.json", json.dumps(found, indent=1, allow_nan=False) + "\n")
    return found
