"""Fit the OOD detector: dermoscopic images on one side, pictures that are none on the other."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from trainer.errors import DatasetError
from worker.errors import ImageFaultError
from worker.images.decode import decode
from worker.images.ood_detector import OodDetector
from worker.images.out_of_distribution import Floats, measure_image_statistics
from worker.images.preprocess import Preprocessing

Inputs = npt.NDArray[np.uint8]

#: These shares of other dermoscopic images lie within the limit, and are not noted as unusual.
LIMIT_QUANTILE, NOTED_QUANTILE = 0.997, 0.985
#: Shortest side of a picture without dermoscopy that is used, in pixels, and the least number of them.
_SHORTEST, _FEWEST = 128, 200
#: Pictures of a folder that is left out by itself.
_GROUP = 50
#: Strength of the penalty on the weights of the features and of the measures (scikit-learn's C), and steps.
_FEATURES_C, _MEASURES_C, _STEPS = 0.01, 0.1, 500


@dataclass(frozen=True, kw_only=True)
class OtherPictures:
    """Pictures that are no dermoscopy.

    Args:
        inputs: preprocessed as dermoscopic images are, (n, size, size, 3), uint8, RGB.
        groups: where each comes from, (n,): what lies in one folder is alike.
    """

    inputs: Inputs
    groups: npt.NDArray[np.str_]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the detector sees of images.

    Args:
        measures: (n, `MEASURES`).
        features: the network's pooled features, (n, channels).
    """

    measures: Floats
    features: npt.NDArray[np.float32]

    @classmethod
    def of(cls, inputs: Inputs, features: npt.NDArray[np.float32]) -> "Seen":
        """Measure images, (n, size, size, 3), uint8, RGB."""
        return cls(measures=np.stack([measure_image_statistics(image) for image in inputs]), features=features)

    def __getitem__(self, chosen: npt.NDArray[np.bool_]) -> "Seen":
        return Seen(measures=self.measures[chosen], features=self.features[chosen])


def read_other_pictures(folders: Sequence[Path], preprocessing: Preprocessing, limit: int) -> OtherPictures:
    """Read pictures that are no dermoscopy. Files that are no pictures, are too small or do not decode are left out.

    Args:
        folders: searched with the folders below. Each folder directly in one of them is a group.
        preprocessing: of the network.
        limit: most pictures, spread over all.

    Raises:
        DatasetError: a folder is missing, or there are too few pictures.
    """
    paths: dict[Path, str] = {}
    for folder in folders:
        if not folder.is_dir():
            raise DatasetError(f"{folder} is no folder. --not-dermoscopy takes a folder of pictures.")
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink():
                below = path.relative_to(folder).parts
                paths[path] = f"{folder}/{below[0]}" if len(below) > 1 else str(folder)
    read = dict(_decoded(paths, preprocessing))
    if len(read) < _FEWEST:
        raise DatasetError(
            f"--not-dermoscopy: found {len(read)} pictures with a short side of {_SHORTEST} pixels or more in "
            f"{', '.join(map(str, folders))}, and at least {_FEWEST} are needed. docs/training.md says where to get "
            "some."
        )
    chosen = np.linspace(0, len(read) - 1, min(len(read), limit)).round().astype(int)
    names = [list(read)[index] for index in chosen]
    return OtherPictures(
        inputs=np.stack([read[name] for name in names]), groups=np.array([paths[name] for name in names])
    )


def _decoded(paths: Iterable[Path], preprocessing: Preprocessing) -> Iterable[tuple[Path, Inputs]]:
    seen: set[bytes] = set()
    for path in paths:
        try:
            data = path.read_bytes()
            image = decode(data)
        except (ImageFaultError, OSError):
            continue
        if min(image.shape[:2]) >= _SHORTEST and data not in seen:
            seen.add(data)
            yield path, preprocessing(image)


def fit_detector(dermoscopy: Seen, others: Seen) -> OodDetector:
    """Fit two logistic regressions and add them, each divided by its deviation among dermoscopic images.

    Args:
        dermoscopy: training images of every diagnosis.
        others: pictures that are no dermoscopy.
    """
    labels = np.repeat([0, 1], [len(dermoscopy.measures), len(others.measures)])
    measures = np.concatenate([dermoscopy.measures, others.measures])
    features = np.concatenate([dermoscopy.features, others.features]).astype(np.float64)
    first = StandardScaler().fit(measures)
    products = PolynomialFeatures(2, include_bias=False)
    of_measures = _fitted(products.fit_transform(first.transform(measures)), labels, _MEASURES_C)
    of_features = _fitted(features, labels, _FEATURES_C)
    (weights, offset), (feature_weights, feature_offset) = of_measures, of_features
    count = measures.shape[1]
    return OodDetector(
        centre=first.mean_,
        scale=first.scale_,
        measures=weights[:count],
        products=weights[count:],
        features=feature_weights,
        intercept=np.array(offset + feature_offset),
    )


def _fitted(values: Floats, labels: npt.NDArray[np.int64], penalty: float) -> tuple[Floats, float]:
    """Weights and offset whose sum has mean 0 and deviation 1 among dermoscopic images."""
    model: Pipeline = make_pipeline(
        StandardScaler(), LogisticRegression(C=penalty, max_iter=_STEPS, class_weight="balanced")
    ).fit(values, labels)
    scaler, regression = model[0], model[1]
    weights: Floats = regression.coef_[0] / scaler.scale_
    found = values[labels == 0] @ weights
    deviation = float(found.std()) or 1.0
    return weights / deviation, -float(found.mean()) / deviation


def caught_of_unseen_groups(dermoscopy: Seen, held_out: Seen, others: Seen, groups: npt.NDArray[np.str_]) -> float:
    """Share of pictures beyond the limit, each by a detector that has seen none of its folder.

    Args:
        dermoscopy: training images.
        held_out: other dermoscopic images, which the limit comes from.
        others: pictures that are no dermoscopy.
        groups: of each, (n,).
    """
    names, places, counts = np.unique(groups, return_inverse=True, return_counts=True)
    # Small folders are left out together: each fit takes seconds.
    kinds = np.where(counts[places] < _GROUP, len(names), places)
    caught = 0
    for kind in np.unique(kinds):
        inside = kinds == kind
        if inside.all():
            continue
        detector = fit_detector(dermoscopy, others[~inside])
        limit = np.quantile(detector.scores(held_out.measures, held_out.features), LIMIT_QUANTILE)
        left = others[inside]
        caught += int((detector.scores(left.measures, left.features) > limit).sum())
    return caught / len(groups)
