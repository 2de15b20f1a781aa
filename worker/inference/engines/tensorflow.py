"""The reference engine: the Keras model itself on TensorFlow."""

import os

import numpy as np
import numpy.typing as npt

from worker.errors import EngineError
from worker.inference.bundle import Bundle
from worker.inference.engines import Inference, checked_distributions, checked_probabilities


class TensorFlowEngine:
    """The bundle's ``model.keras``, float32.

    Args:
        bundle: verified.
    """

    def __init__(self, bundle: Bundle) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        try:
            import keras
            import tensorflow
        except ModuleNotFoundError as error:
            raise EngineError(
                f"The reference engine needs {error.name}, which is not installed: pip install 'dermq[tensorflow]'. "
                "Or score with DERMQ_ENGINE=openvino."
            ) from None
        try:
            # Safe mode refuses code in the file; compile would need a loss that serving does not use.
            self._model = keras.saving.load_model(bundle.folder / "model.keras", compile=False, safe_mode=True)
        except (OSError, ValueError) as error:
            raise EngineError(f"Keras cannot load the bundle's model.keras: {error}") from None
        # Once more: the file that was loaded is the one that was checked.
        bundle.read("model.keras")
        self._errors = (tensorflow.errors.OpError, ValueError)
        self._classes = len(bundle.manifest.classes)
        self.label = f"tensorflow {tensorflow.__version__}"

    def infer(
        self, images: npt.NDArray[np.uint8], *, features: bool = False, maps_from: float | None = None
    ) -> Inference:
        """Score preprocessed images; see `worker.inference.engines.InferenceEngine.infer`."""
        try:
            outputs = self._model(images.astype(np.float32), training=False)
        except self._errors as error:
            raise EngineError(f"TensorFlow failed: {error}") from None
        distributions = outputs.get("class_probabilities")
        probability = checked_probabilities(np.asarray(outputs["probability"]), len(images))
        maps = np.asarray(outputs["feature_map"])
        return Inference(
            probability=probability,
            features=np.asarray(outputs["features"]) if features else None,
            feature_maps=[
                each if maps_from is not None and found >= maps_from else None
                for each, found in zip(maps, probability, strict=True)
            ],
            class_probabilities=None
            if distributions is None
            else checked_distributions(np.asarray(distributions), len(images), self._classes),
        )
