"""Whether heat maps show what a model's probability rests on: deletion and insertion, against maps of chance.

Petsiuk et al., "RISE", BMVC 2018. Deletion blurs the picture step by step, from the map's highest place on: the sooner
the probability falls, the better the map. Insertion makes a blurred picture sharp, and should be fast.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from trainer.data.load_images import load_images
from trainer.metrics.figures import HeatMaps, MapCurves
from trainer.metrics.subgroups import estimate
from trainer.thresholds.bootstrap import LesionBootstrap
from trainer.thresholds.policies import BOOTSTRAP_SEED
from worker.images.opencv import cv2
from worker.images.preprocess import Preprocessing
from worker.inference.metrics import Estimate

Floats = npt.NDArray[np.float64]
Inputs = npt.NDArray[np.uint8]

#: Melanoma images at most, and shares of the picture that are changed.
_IMAGES, _SHARES = 60, (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
#: Standard deviation of the blur as a share of the input's side: no structure of a lesion is left.
_BLUR = 0.1
#: Places of a map of chance along a side, as in the networks' last feature map.
_PLACES = 7


def measure_heat_maps(
    scored: pd.DataFrame,
    preprocessing: Preprocessing,
    evidence: Callable[[Inputs], npt.NDArray[np.float32]],
    probabilities: Callable[[Inputs], Floats],
    threshold: float,
) -> HeatMaps | None:
    """Measure deletion and insertion on melanomas that are flagged.

    Args:
        scored: rows with ``label``, ``lesion_id``, ``path`` and ``probability``.
        preprocessing: of the model.
        evidence: gives the maps of inputs, (n, height, width).
        probabilities: gives the calibrated probabilities of inputs, (n,).
        threshold: of the first policy.

    Returns:
        Mean curves and areas, with intervals over lesions. None where no melanoma is flagged.
    """
    flagged = np.flatnonzero((scored["label"].to_numpy() == 1) & (scored["probability"].to_numpy() >= threshold))
    chosen = flagged[np.linspace(0, len(flagged) - 1, min(len(flagged), _IMAGES)).round().astype(int)]
    if not len(chosen):
        return None
    pictures = load_images([Path(path) for path in scored["path"].iloc[chosen]], preprocessing).inputs
    maps = evidence(pictures)
    empty = int((maps.reshape(len(maps), -1).max(axis=1) <= 0).sum())
    chance = np.random.default_rng(BOOTSTRAP_SEED).random((len(pictures), _PLACES, _PLACES)).astype(np.float32)
    lesions = scored["lesion_id"].to_numpy(object)[chosen]
    bootstrap = LesionBootstrap(lesions, np.ones(len(chosen), int), seed=BOOTSTRAP_SEED)
    curves = {}
    for name, of in (("map", maps), ("chance", chance)):
        orders = [_order(each, pictures.shape[1]) for each in of]
        curves[name] = {
            way: _curves(pictures, orders, probabilities, insertion=way == "insertion")
            for way in ("deletion", "insertion")
        }

    def described(way: str) -> MapCurves:
        by_map, by_chance = curves["map"][way], curves["chance"][way]
        areas = np.trapezoid(by_map, _SHARES, axis=1), np.trapezoid(by_chance, _SHARES, axis=1)
        difference: Estimate = estimate(
            bootstrap(lambda weights: (weights @ (areas[0] - areas[1])) / weights.sum(axis=1))
        )
        return MapCurves(
            by_map=tuple(by_map.mean(axis=0).tolist()),
            by_chance=tuple(by_chance.mean(axis=0).tolist()),
            area_difference=difference,
        )

    return HeatMaps(
        images=len(chosen),
        empty=empty,
        shares=_SHARES,
        deletion=described("deletion"),
        insertion=described("insertion"),
    )


def _order(places: npt.NDArray[np.float32], size: int) -> npt.NDArray[np.intp]:
    """Rank of each pixel, (size, size): 0 where the map is highest."""
    large = np.asarray(cv2.resize(places, (size, size), interpolation=cv2.INTER_LINEAR)).ravel()
    ranks = np.empty(large.size, np.intp)
    # Where a map is 0, places follow by chance and not from the top.
    by_chance = np.random.default_rng(BOOTSTRAP_SEED).random(large.size)
    ranks[np.lexsort((by_chance, -large))] = np.arange(large.size)
    return ranks.reshape(size, size)


def _curves(
    pictures: Inputs,
    orders: list[npt.NDArray[np.intp]],
    probabilities: Callable[[Inputs], Floats],
    *,
    insertion: bool,
) -> Floats:
    """Probability of each picture with each share of it changed, (n, shares)."""
    size = pictures.shape[1]
    blurred = np.stack([np.asarray(cv2.GaussianBlur(each, (0, 0), _BLUR * size), np.uint8) for each in pictures])
    before, after = (blurred, pictures) if insertion else (pictures, blurred)
    found = []
    for share in _SHARES:
        changed = np.stack(orders) < share * size * size
        found.append(probabilities(np.where(changed[..., None], after, before)))
    return np.stack(found, axis=1)
