"""Inference engines behind one protocol. Load them in the process that infers, never before a fork."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from worker.errors import EngineError
from worker.inference.bundle import Bundle

EngineName = Literal["openvino", "tensorflow"]


@dataclass(frozen=True, kw_only=True)
class Inference:
    """Outputs of a model for a batch.

    Args:
        probability: probability of melanoma before calibration, (n,), float64.
        features: pooled features, (n, channels), float32. None unless asked for.
        feature_maps: last feature map of each image, (height, width, channels), float32, or None where it was not asked
            for.
        class_probabilities: (n, classes), float64. None for a bundle with two classes.
    """

    probability: npt.NDArray[np.float64]
    features: npt.NDArray[np.float32] | None = None
    feature_maps: Sequence[npt.NDArray[np.float32] | None] = ()
    class_probabilities: npt.NDArray[np.float64] | None = None


class InferenceEngine(Protocol):
    """A loaded model."""

    #: Engine and version, stored with each prediction.
    label: str

    def infer(
        self, images: npt.NDArray[np.uint8], *, features: bool = False, maps_from: float | None = None
    ) -> Inference:
        """Score preprocessed images.

        Args:
            images: (n, size, size, 3), uint8, RGB, n of at least 1.
            features: whether to copy the pooled features.
            maps_from: least probability, before calibration, of an image whose feature map is copied, 250 KB. None
                copies none.

        Raises:
            EngineError: the engine failed or returned something other than probabilities.
        """


def load_engine(name: EngineName, bundle: Bundle, *, threads: int = 1) -> InferenceEngine:
    """Load a bundle's model.

    Args:
        name: ``openvino`` or ``tensorflow``.
        bundle: verified.
        threads: how many the engine may use.

    Raises:
        EngineError: the engine is not installed or cannot load the model.
    """
    if name == "openvino":
        from worker.inference.engines.openvino import OpenVinoEngine

        return OpenVinoEngine(bundle, threads=threads)
    from worker.inference.engines.tensorflow import TensorFlowEngine

    return TensorFlowEngine(bundle)


def checked_probabilities(values: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.float64]:
    """Check that there is one probability per image.

    Args:
        values: (n, 1).
        count: images in the batch.

    Returns:
        (n,), float64.

    Raises:
        EngineError: they have another shape, or a value is not a number from 0 to 1.
    """
    flat = np.asarray(values, np.float64).reshape(-1)
    if flat.shape != (count,) or not np.all((flat >= 0) & (flat <= 1)):
        raise EngineError(f"the model returned {flat.shape[0]} values for {count} images, or a value outside 0 to 1")
    return flat


def checked_distributions(values: npt.NDArray[np.float32], count: int, classes: int) -> npt.NDArray[np.float64]:
    """Check that there is one probability per image and class, and that they add up to one.

    Args:
        values: (n, classes).
        count: images in the batch.
        classes: of the bundle.

    Returns:
        (n, classes), float64.

    Raises:
        EngineError: they have another shape, a value is not a number from 0 to 1, or a row does not add up to one.
    """
    table = np.asarray(values, np.float64)
    right = table.shape == (count, classes) and np.all((table >= 0) & (table <= 1))
    if not right or np.abs(table.sum(axis=1) - 1).max() > 1e-3:
        raise EngineError(
            f"the model returned impossible class probabilities of shape {table.shape} for {count} images"
        )
    return table
