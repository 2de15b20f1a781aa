"""Robustness of a run on its validation images, by source too. Nothing accesses the test split."""

from collections.abc import Sequence
from pathlib import Path

from trainer.config import RunConfig
from trainer.data.diagnoses import melanoma_or_nevus
from trainer.data.run_images import read_images_of
from trainer.data.splits import VALIDATION, first_lesions
from trainer.errors import RunError
from trainer.evaluation.engine_parity import converted_model
from trainer.evaluation.robustness import measure_robustness
from trainer.evaluation.trained_run import load_trained_run
from trainer.metrics.figures import Robustness
from trainer.metrics.subgroups import describe_subgroups
from trainer.run_folder import RunFolder, read_predictions
from trainer.thresholds.policies import BOOTSTRAP_SEED
from worker.atomic_files import write_text

#: Columns of `trainer.metrics.subgroups.group_columns`: source and proof of diagnosis.
_GROUPED_BY = ("dataset", "dx_type")


def robustness_on_validation(datasets: Sequence[Path], run: Path) -> Robustness:
    """Change validation images, score them again, and write ``robustness.json``: for choosing between recipes.

    Args:
        datasets: folders of the data sets.
        run: a run folder after `trainer.training.fit.fit`.

    Returns:
        Figures at the run's own thresholds, which were chosen on the unchanged images, with subgroups of all validation
        images by source and by proof of diagnosis.

    Raises:
        MissingError: the run is not finished.
        RunError: it was begun with other data, or has no validation side.
        SplitError: its manifest was changed.
    """
    if (run / "config.json").is_file() and not RunConfig.read(run).has_validation:
        raise RunError(
            f"The run {run} has no validation images (--fold all). Name a run that has some, such as one of its folds."
        )
    trained_run = load_trained_run(run)
    images = read_images_of(run, datasets)
    images = first_lesions(images, trained_run.config.limit)
    served = trained_run.served
    score = (
        converted_model(trained_run.model, trained_run.config.size)
        if served is None
        else lambda inputs: served(inputs)[:, 0]
    )
    found = measure_robustness(
        melanoma_or_nevus(images[images["split"] == VALIDATION]),
        lambda changed: trained_run.calibration.apply(score(changed)),
        trained_run.preprocessing,
        trained_run.thresholds,
    )
    scored = read_predictions(RunFolder(run).chosen_predictions())[["label", "lesion_id", "probability", *_GROUPED_BY]]
    subgroups = describe_subgroups(
        scored.assign(probability=trained_run.calibration.apply(scored["probability"].to_numpy())),
        {name: policy.threshold for name, policy in trained_run.thresholds.items()},
        seed=BOOTSTRAP_SEED,
    )
    found = found.model_copy(update={"subgroups": subgroups})
    write_text(run / "robustness.json", found.model_dump_json(indent=1) + "\n")
    return found
