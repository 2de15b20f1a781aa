"""What a run is worth beyond its validation AUC: within sources, and under hair, ink and blur; test stays sealed."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from trainer.atomic_files import write_text
from trainer.config import FitConfig
from trainer.data.ham10000 import melanoma_or_nevus
from trainer.data.run_images import read_images_of
from trainer.data.splits import VALIDATION, first_lesions
from trainer.evaluation.engine_parity import converted_scorer
from trainer.evaluation.robustness import stress
from trainer.evaluation.trained_run import load_frozen
from trainer.metrics.subgroups import stratify
from trainer.run_folder import RunError
from trainer.thresholds.policies import BOOTSTRAP_SEED

#: Columns of `trainer.metrics.subgroups.group_columns`: where an image is from, and whether histology proved its
#: diagnosis.
_GROUPED_BY = ("dataset", "dx_type")


def stress_validation(dataset: Path, run: Path) -> dict[str, Any]:
    """Change validation images, score them again, and write ``robustness.json``: for choosing between recipes.

    Args:
        dataset: the HAM10000 folder.
        run: a run folder after `trainer.training.fit.fit`.

    Returns:
        As `trainer.evaluation.robustness.stress`, at the run's own thresholds, which were chosen on the unchanged images;
        and ``strata``, as `trainer.metrics.subgroups.stratify`, of all validation images by source and by proof of
        diagnosis.

    Raises:
        FileNotFoundError: the run is not finished.
        RunError: it was begun with other data, or has no validation side.
        SplitError: its manifest was changed.
    """
    if (run / "config.json").is_file() and not FitConfig.read(run).has_validation:
        raise RunError(
            f"Received: run {run}, which has no validation side (--fold all). Expected: a run with a validation "
            "side, such as one of its folds."
        )
    frozen = load_frozen(run)
    images = read_images_of(run, dataset)
    images = first_lesions(images, frozen.config.limit)
    score = converted_scorer(frozen.model, frozen.config.size)
    found = stress(
        melanoma_or_nevus(images[images["split"] == VALIDATION]),
        lambda changed: frozen.calibration.apply(score(changed)),
        frozen.preprocessing,
        frozen.thresholds,
    )
    scored = pd.read_csv(run / "validation.csv")[["label", "lesion_id", "probability", *_GROUPED_BY]]
    found["strata"] = stratify(
        scored.assign(probability=frozen.calibration.apply(scored["probability"].to_numpy())),
        {name: policy.threshold for name, policy in frozen.thresholds.items()},
        seed=BOOTSTRAP_SEED,
    )
    write_text(run / "robustness.json", json.dumps(found, indent=1, allow_nan=False) + "\n")
    return found
