"""Out-of-distribution (OOD) detection that has also seen what is no dermoscopy: letters, photographs, textures.

What was seen on neither side lies far from both, and the distance from dermoscopy alone says too little: it refuses the
cameras of other clinics before it refuses a photograph. Outliers that a detector is shown teach it what to look at
(Hendrycks et al., "Deep anomaly detection with outlier exposure", ICLR 2019). docs/decisions/0024 has the figures.
"""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.errors import BundleError, EngineError
from worker.images.out_of_distribution import MEASURES, Floats, load_arrays

#: Pairs of measures whose products are weighed, each measure with itself too.
_PAIRS = np.triu_indices(MEASURES)
#: The arrays of a file.
_ARRAYS = ("centre", "scale", "measures", "products", "features", "intercept")


@dataclass(frozen=True, kw_only=True)
class OodDetector:
    """Two logistic regressions, added: of the measures of the model's input, and of the network's features.

    Args:
        centre: subtracted from the measures, (`MEASURES`,).
        scale: and divided by, (`MEASURES`,).
        measures: weights of what results, (`MEASURES`,).
        products: weights of its products in pairs, in the order of `numpy.triu_indices`, (pairs,).
        features: weights of the network's pooled features, (channels,).
        intercept: a single number, shape ().
    """

    centre: Floats
    scale: Floats
    measures: Floats
    products: Floats
    features: Floats
    intercept: Floats

    def scores(self, measures: Floats, features: npt.NDArray[np.float32]) -> Floats:
        """How far each image is from dermoscopy, (n,): about 0 for a typical one, with a standard deviation of about 1.

        Args:
            measures: from `worker.images.out_of_distribution.measure_image_statistics`, (n, `MEASURES`).
            features: the network's pooled features of the same images, (n, channels).

        Raises:
            EngineError: the network has another number of features.
        """
        if features.shape[1:] != self.features.shape:
            raise EngineError(
                f"the network gives {features.shape[1]} features, and the bundle's OOD detector weighs "
                f"{len(self.features)}"
            )
        scaled = (measures - self.centre) / self.scale
        products = scaled[:, _PAIRS[0]] * scaled[:, _PAIRS[1]]
        found: Floats = (
            scaled @ self.measures + products @ self.products + features @ self.features + float(self.intercept)
        )
        return found

    def to_bytes(self) -> bytes:
        """An ``.npz`` of plain arrays."""
        file = io.BytesIO()
        arrays: dict[str, Any] = {name: getattr(self, name) for name in _ARRAYS}
        np.savez(file, **arrays)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "OodDetector":
        """Read what `to_bytes` wrote. Nothing in it is executed.

        Raises:
            BundleError: the content is something else.
        """
        arrays = load_arrays(data, _ARRAYS, "statistics for the out-of-distribution gate")
        shapes = {
            "centre": (MEASURES,),
            "scale": (MEASURES,),
            "measures": (MEASURES,),
            "products": (len(_PAIRS[0]),),
            "features": (arrays["features"].size,),
            "intercept": (),
        }
        wrong = any(arrays[name].shape != shape for name, shape in shapes.items())
        # Without weights every picture would have the same score.
        if wrong or not (arrays["scale"] > 0).all() or not (arrays["products"].any() and arrays["features"].any()):
            raise BundleError(
                "The bundle's statistics for the out-of-distribution gate are invalid (shapes, or numbers of zero). "
                "Export the bundle again with `dermq-train export`."
            )
        return cls(**arrays)
