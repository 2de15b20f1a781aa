"""Parts of run folders, as `trainer.training.fit` writes them."""

from pathlib import Path
from typing import Any

from trainer.config import RunConfig
from trainer.run_records import RECIPE, RunDescription, TrainingData, versions


def changed(config: RunConfig, **settings: Any) -> RunConfig:
    """The settings with some of them changed, checked again."""
    return RunConfig.make({**config.model_dump(), **settings})


def write_description(folder: Path, **fields: Any) -> None:
    """Write ``run.json``."""
    described = RunDescription.model_validate(
        {
            "begun": "2026-11-22T10:00:00+00:00",
            "recipe": RECIPE,
            "split_sha256": "a" * 64,
            "data": TrainingData(images=30, sha256="b" * 64),
            "weights_from": "a package",
            "versions": versions(),
            **fields,
        }
    )
    (folder / "run.json").write_text(described.model_dump_json())
