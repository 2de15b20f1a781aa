"""Who is judged on images from elsewhere: a run, by its Keras model, or a bundle, as a worker runs it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from trainer.evaluation.look import look_at
from trainer.parts import in_parts
from trainer.policies import Policies
from worker.bundle import MANIFEST_NAME, Bundle
from worker.engine import load_engine


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A model with what it has frozen.

    Args:
        described: what a report says of it.
        policies: on calibrated probabilities.
        score: takes rows with ``path`` and gives them with ``raw_probability``, ``probability`` and ``ita``.
    """

    described: dict[str, Any]
    policies: Policies
    score: Callable[[pd.DataFrame], pd.DataFrame]


def is_bundle(folder: Path) -> bool:
    """Whether a folder is a bundle's, and not a run's."""
    return (folder / MANIFEST_NAME).is_file()


def run_as_judged(run: Path) -> Judged:
    """A finished run.

    Raises:
        FileNotFoundError: it is not finished; names the file.
    """
    from trainer.evaluate import describe_run, load_frozen

    frozen = load_frozen(run)
    return Judged(
        described=describe_run(run, frozen), policies=frozen.policies, score=lambda images: frozen.score(images)[0]
    )


def bundle_as_judged(bundle: Bundle) -> Judged:
    """A bundle, on OpenVINO."""
    manifest = bundle.manifest
    engine = load_engine("openvino", bundle, threads=2)

    def score(images: pd.DataFrame) -> pd.DataFrame:
        look = look_at([Path(path) for path in images["path"]], bundle.preprocessing)
        raw = in_parts(lambda part: engine.infer(part).probability, look.inputs)
        return images.assign(raw_probability=raw, probability=manifest.calibration.apply(raw), ita=look.ita)

    described = {
        "name": f"{manifest.name} {manifest.version}",
        "bundle_sha256": bundle.sha256,
        "config": {
            "backbone": manifest.backbone,
            "size": manifest.input.size,
            "classes": "seven" if len(manifest.classes) > 2 else "two",
        },
        "split_sha256": manifest.split_manifest_sha256,
        "calibration": manifest.calibration.model_dump(),
        "recalibrated": manifest.recalibration is not None,
        "openings": [],
    }
    return Judged(described=described, policies=Policies(thresholds=manifest.thresholds, refused={}), score=score)
