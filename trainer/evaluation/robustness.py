"""Robustness: score changed copies of images; and images of the diagnoses that the two-class task leaves out."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from trainer.augmentation.perturbations import PERTURBATIONS, Perturbation, working_copy
from trainer.data.resized_cache import decode_file
from trainer.metrics.discrimination import auroc
from trainer.metrics.figures import Change, ChangedFlags, OtherDiagnosis, Robustness, UnchangedFlags
from trainer.metrics.subgroups import estimate, share_of
from trainer.thresholds.bootstrap import RESAMPLES, LesionBootstrap
from trainer.thresholds.policies import BOOTSTRAP_SEED
from worker.images.colour import RGBImage
from worker.images.preprocess import Preprocessing
from worker.inference.bundle import PolicyThreshold
from worker.inference.metrics import ClassCounts, Estimate

Floats = npt.NDArray[np.float64]
#: Takes inputs (n, size, size, 3), uint8, RGB, and gives calibrated probabilities, (n,).
Probabilities = Callable[[npt.NDArray[np.uint8]], Floats]

#: Images of each class in the sample. Changing all images would take an hour on two cores.
_MELANOMAS, _NEVI = 175, 225


def measure_robustness(
    images: pd.DataFrame,
    score: Probabilities,
    preprocessing: Preprocessing,
    thresholds: dict[str, PolicyThreshold],
    *,
    perturbations: Sequence[Perturbation] = PERTURBATIONS,
    resamples: int = RESAMPLES,
) -> Robustness:
    """Change a sample of the images, score it again, and compare AUROC and flags.

    Args:
        images: rows with ``label``, ``lesion_id`` and ``path``.
        score: calibrated probabilities of preprocessed inputs. It scores the unchanged copies too.
        preprocessing: of the model.
        thresholds: by policy.
        perturbations: the changes.
        resamples: behind each interval.

    Returns:
        Figures of the unchanged sample, and of each change at each strength.
    """
    chosen = draw_sample(images)
    labels, lesions = chosen["label"].to_numpy(), chosen["lesion_id"].to_numpy(object)
    bootstrap = LesionBootstrap(lesions, labels, seed=BOOTSTRAP_SEED, resamples=resamples)

    def at_thresholds(probabilities: Floats) -> dict[str, UnchangedFlags]:
        flags = {name: probabilities >= policy.threshold for name, policy in thresholds.items()}
        return {
            name: UnchangedFlags(
                sensitivity=share_of(bootstrap, flagged, labels == 1, lesions),
                specificity=share_of(bootstrap, ~flagged, labels == 0, lesions),
            )
            for name, flagged in flags.items()
        }

    def area(of: Callable[[Floats], Floats]) -> Estimate:
        return estimate(bootstrap(of))

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

                def difference(weights: Floats, changed: Floats = changed) -> Floats:
                    return auroc(labels, changed, weights) - auroc(labels, unchanged, weights)

                changes.append(
                    Change(
                        name=perturbation.name,
                        strength=strength,
                        unit=perturbation.unit,
                        policies={
                            name: _changed_flags(labels, unchanged, changed, thresholds[name].threshold, at)
                            for name, at in at_thresholds(changed).items()
                        },
                        auroc=area(lambda weights, c=changed: auroc(labels, c, weights)),  # type: ignore[misc]
                        auroc_difference=area(difference),
                    )
                )
    return Robustness(
        images=ClassCounts(melanoma=int((labels == 1).sum()), nevus=int((labels == 0).sum())),
        auroc=area(lambda weights: auroc(labels, unchanged, weights)),
        policies=at_thresholds(unchanged),
        changes=tuple(changes),
    )


def draw_sample(images: pd.DataFrame) -> pd.DataFrame:
    """Up to 175 melanoma and 225 nevus images by ``label``, always the same ones."""
    parts = [
        part.sample(min(len(part), most), random_state=BOOTSTRAP_SEED)
        for part, most in ((images[images["label"] == 1], _MELANOMAS), (images[images["label"] == 0], _NEVI))
    ]
    return pd.concat(parts).sort_index().reset_index(drop=True)


def _changed_flags(
    labels: npt.NDArray[np.int64], before: Floats, after: Floats, threshold: float, at: UnchangedFlags
) -> ChangedFlags:
    """Whose flag changed in which direction."""
    was, now = before >= threshold, after >= threshold
    return ChangedFlags(
        sensitivity=at.sensitivity,
        specificity=at.specificity,
        changed=float((was != now).mean()),
        melanomas_lost=int((was & ~now & (labels == 1)).sum()),
        melanomas_gained=int((~was & now & (labels == 1)).sum()),
        nevi_flagged=int((~was & now & (labels == 0)).sum()),
        nevi_unflagged=int((was & ~now & (labels == 0)).sum()),
    )


def other_diagnoses(images: pd.DataFrame, thresholds: dict[str, PolicyThreshold]) -> tuple[OtherDiagnosis, ...]:
    """How many images of each other diagnosis are flagged.

    Args:
        images: rows with ``dx``, ``lesion_id`` and calibrated ``probability``.
        thresholds: by policy.
    """
    found = []
    for diagnosis, part in images.groupby("dx"):
        first, middle, third = (float(value) for value in part["probability"].quantile((0.25, 0.5, 0.75)))
        found.append(
            OtherDiagnosis(
                diagnosis=str(diagnosis),
                images=len(part),
                lesions=part["lesion_id"].nunique(),
                quartiles=(first, middle, third),
                policies={
                    name: int((part["probability"] >= policy.threshold).sum()) for name, policy in thresholds.items()
                },
            )
        )
    return tuple(found)
