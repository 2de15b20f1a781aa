"""Drift: how far the images that are scored are from those that the bundle was made with.

The population stability index (Siddiqi, "Credit Risk Scorecards", 2006) compares the share of images in each bin with
the share that the reference has there, which its quantiles tell: the sum of (share - reference) log(share / reference).
Up to 0.1 is usual, from 0.25 on the images are others.
"""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from db.drift import MeasuredImage
from worker.inference.bundle import BundleManifest

#: Images that are looked at, of a job whose folders are compared too, and the fewest that tell anything.
MOST, MOST_OF_FOLDERS, FEWEST = 2_000, 20_000, 100
#: From these on a drift is worth a look, and the images are others.
MODERATE, STRONG = 0.1, 0.25
#: Quantiles of the reference that part the bins. Its outer ones hold too few images for a sample.
_EDGES = ("0.01", "0.05", "0.5", "0.95", "0.99")
#: Added to a count, so that an empty bin does not make an index infinite.
_EMPTY = 0.5


@dataclass(frozen=True, kw_only=True)
class Drift:
    """The drift of one measure.

    Args:
        measure: ``probability``, ``contrast``, ``sharpness`` or ``out_of_distribution``.
        images: number of images with it.
        index: population stability index.
        median: of the images.
        reference: median of the reference.
    """

    measure: str
    images: int
    index: float
    median: float
    reference: float

    @property
    def verdict(self) -> str:
        """In one word."""
        return "strong" if self.index >= STRONG else "moderate" if self.index >= MODERATE else "little"


def measure_drift(images: Sequence[MeasuredImage], manifest: BundleManifest) -> list[Drift]:
    """Compare images with the bundle's reference. Measures that either lacks are left out.

    Args:
        images: a sample of scored ones.
        manifest: of the bundle that scored them.
    """
    quality, gate = manifest.image_quality, manifest.out_of_distribution
    references: dict[str, tuple[Mapping[str, float], Callable[[MeasuredImage], float | None]]] = {
        "probability": (manifest.probabilities, lambda image: image.probability),
        "contrast": (quality.contrast if quality else {}, lambda image: image.contrast),
        "sharpness": (quality.sharpness if quality else {}, lambda image: image.sharpness),
        "out_of_distribution": (gate.distances if gate else {}, lambda image: image.ood_score),
    }
    found = []
    for measure, (quantiles, value_of) in references.items():
        values = sorted(value for image in images if (value := value_of(image)) is not None)
        if len(values) < FEWEST or not all(edge in quantiles for edge in _EDGES):
            continue
        found.append(
            Drift(
                measure=measure,
                images=len(values),
                index=stability_index(values, [quantiles[edge] for edge in _EDGES]),
                median=values[len(values) // 2],
                reference=quantiles["0.5"],
            )
        )
    return found


def stability_index(values: Sequence[float], edges: Sequence[float]) -> float:
    """The population stability index of values.

    Args:
        values: of the images.
        edges: of the bins: the values of the reference at `_EDGES`.
    """
    places = [0.0, *map(float, _EDGES), 1.0]
    expected = [high - low for low, high in pairwise(places)]
    counts = Counter(bisect_right(edges, value) for value in values)
    total = len(values) + _EMPTY * len(expected)
    shares = [(counts[place] + _EMPTY) / total for place in range(len(expected))]
    return sum((share - usual) * math.log(share / usual) for share, usual in zip(shares, expected, strict=True))


def by_folder(images: Sequence[MeasuredImage]) -> Iterator[tuple[str, list[MeasuredImage]]]:
    """The images of each folder directly below the root, those of some size, the largest first."""
    folders: dict[str, list[MeasuredImage]] = {}
    for image in images:
        folder, slash, _ = image.path.partition("/")
        folders.setdefault(folder if slash else "", []).append(image)
    if len(folders) > 1:
        for folder, inside in sorted(folders.items(), key=lambda item: (-len(item[1]), item[0])):
            if len(inside) >= FEWEST:
                yield folder or "directly in the root", inside
