"""Score changed copies of images, and images of diagnoses that the two-class task leaves out."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from trainer.augmentation.perturbations import PERTURBATIONS, Perturbation, working_copy
from trainer.data.resized_cache import decode_file
from trainer.metrics.discrimination import auroc
from trainer.metrics.subgroups import as_json, share_of
from trainer.thresholds.bootstrap import RESAMPLES, LesionBootstrap
from trainer.thresholds.policies import BOOTSTRAP_SEED
from worker.images.decode import RGBImage
from worker.images.preprocess import Preprocessing
from worker.inference.bundle import PolicyThreshold

Floats = npt.NDArray[np.float64]
#: Takes inputs (n, size, size, 3), uint8, RGB, and gives calibrated probabilities, (n,).
Probabilities = Callable[[npt.NDArray[np.uint8]], Floats]

#: Images of each class that are drawn; to change all of them would take an hour on two cores.
_MELANOMAS, _NEVI = 175, 225


def measure_robustness(
    images: pd.DataFrame,
    score: Probabilities,
    preprocessing: Preprocessing,
    thresholds: dict[str, PolicyThreshold],
    *,
    perturbations: Sequence[Perturbation] = PERTURBATIONS,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """Change images, score them again, and say what it did to AUROC and flags.

    Args:
        images: rows with ``label``, ``lesion_id`` and ``path``.
        score: calibrated probabilities of preprocessed inputs; unchanged copies are scored by it too.
        preprocessing: of the run.
        thresholds: by policy.
        perturbations: what to do to them.
        resamples: behind each interval.

    Returns:
        ``images`` by class; ``auroc`` and ``policies`` (sensitivity and specificity) unchanged; and ``changes``: one
        entry for each perturbation and strength.
    """
    chosen = draw_some(images)
    labels, lesions = chosen["label"].to_numpy(), chosen["lesion_id"].to_numpy(object)
    bootstrap = LesionBootstrap(lesions, labels, seed=BOOTSTRAP_SEED, resamples=resamples)

    def at_thresholds(probabilities: Floats) -> dict[str, dict[str, Any]]:
        flags = {name: probabilities >= policy.threshold for name, policy in thresholds.items()}
        return {
            name: {
                "sensitivity": share_of(bootstrap, called, labels == 1, lesions),
                "specificity": share_of(bootstrap, ~called, labels == 0, lesions),
            }
            for name, called in flags.items()
        }

    def load(path: str) -> RGBImage:
        return working_copy(decode_file(Path(path)))

    with ThreadPoolExecutor() as pool:
        pictures = list(pool.map(load, chosen["path"]))
        unchanged = score(np.stack(list(pool.map(preprocessing, pictures))))
        changes = []
        for perturbation in perturbations:
            for strength in perturbation.strengths:

                def change(
                    numbered: tuple[int, RGBImage], p: Perturbation = perturbation, s: float = strength
                ) -> RGBImage:
                    rng = np.random.default_rng((BOOTSTRAP_SEED, numbered[0]))
                    return preprocessing(p.change(numbered[1], s, rng))

                changed = score(np.stack(list(pool.map(change, enumerate(pictures)))))
                moved = _moved(labels, unchanged, changed, thresholds)
                changes.append(
                    {
                        "name": perturbation.name,
                        "strength": strength,
                        "unit": perturbation.unit,
                        "policies": {name: {**at, **moved[name]} for name, at in at_thresholds(changed).items()},
                        **_areas(labels, unchanged, changed, bootstrap),
                    }
                )
    return {
        "images": {"melanoma": int((labels == 1).sum()), "nevus": int((labels == 0).sum())},
        "auroc": as_json(bootstrap(lambda weights: auroc(labels, unchanged, weights))),
        "policies": at_thresholds(unchanged),
        "changes": changes,
    }


def draw_some(images: pd.DataFrame) -> pd.DataFrame:
    """Up to 175 melanoma and 225 nevus images, by ``label``: always the same, and of few melanomas all."""
    parts = [
        part.sample(min(len(part), most), random_state=BOOTSTRAP_SEED)
        for part, most in ((images[images["label"] == 1], _MELANOMAS), (images[images["label"] == 0], _NEVI))
    ]
    return pd.concat(parts).sort_index().reset_index(drop=True)


def _moved(
    labels: npt.NDArray[np.int64], before: Floats, after: Floats, thresholds: dict[str, PolicyThreshold]
) -> dict[str, dict[str, Any]]:
    """By policy, whose flag changed which way."""
    policies = {}
    for name, policy in thresholds.items():
        was, now = before >= policy.threshold, after >= policy.threshold
        policies[name] = {
            "changed": float((was != now).mean()),
            "melanomas_lost": int((was & ~now & (labels == 1)).sum()),
            "melanomas_gained": int((~was & now & (labels == 1)).sum()),
            "nevi_flagged": int((~was & now & (labels == 0)).sum()),
            "nevi_unflagged": int((was & ~now & (labels == 0)).sum()),
        }
    return policies


def _areas(
    labels: npt.NDArray[np.int64], before: Floats, after: Floats, bootstrap: LesionBootstrap
) -> dict[str, dict[str, float | None]]:
    return {
        "auroc": as_json(bootstrap(lambda weights: auroc(labels, after, weights))),
        "auroc_difference": as_json(
            bootstrap(lambda weights: auroc(labels, after, weights) - auroc(labels, before, weights))
        ),
    }


def other_diagnoses(images: pd.DataFrame, thresholds: dict[str, PolicyThreshold]) -> list[dict[str, Any]]:
    """How many images of each other diagnosis are flagged.

    Args:
        images: rows with ``dx``, ``lesion_id`` and calibrated ``probability``.
        thresholds: by policy.

    Returns:
        One entry a diagnosis: counts, quartiles of the probability, and by policy the number flagged.
    """
    return [
        {
            "diagnosis": str(diagnosis),
            "images": len(part),
            "lesions": int(part["lesion_id"].nunique()),
            "quartiles": [float(value) for value in part["probability"].quantile((0.25, 0.5, 0.75))],
            "policies": {
                name: int((part["probability"] >= policy.threshold).sum()) for name, policy in thresholds.items()
            },
        }
        for diagnosis, part in images.groupby("dx")
    ]
