"""The default engine: OpenVINO on the processor."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import openvino

from worker.errors import EngineError
from worker.inference.bundle import Bundle
from worker.inference.engines import Inference, checked_distributions, checked_probabilities
from worker.inference.precision import HINTS, require_precision

_MAP = "feature_map"


class OpenVinoEngine:
    """The bundle's ``model.xml``, one image at a time.

    With a fixed batch of one, an image's probability does not depend on its neighbours, to the last bit. So an
    interrupted job gives the same probabilities as an undisturbed one. benchmarks/engines.py measures the cost.

    Args:
        bundle: verified.
        threads: how many inference may use.
    """

    def __init__(self, bundle: Bundle, *, threads: int) -> None:
        size, precision = bundle.manifest.input.size, bundle.manifest.precision
        require_precision(precision, f"{bundle.manifest.name} {bundle.manifest.version}")
        try:
            core = openvino.Core()
            # From memory: OpenVINO would map the files, which could change while the model is in use.
            model = core.read_model(bundle.read("model.xml"), bundle.read("model.bin"))
            model.reshape([1, size, size, 3])
            compiled = core.compile_model(
                model,
                "CPU",
                {
                    "INFERENCE_NUM_THREADS": threads,
                    # With pinning, two processes with one thread each share one core, at half the speed.
                    "ENABLE_CPU_PINNING": False,
                    # Not the processor's preference: an image must have the same probability on every machine.
                    "INFERENCE_PRECISION_HINT": HINTS[precision],
                    "PERFORMANCE_HINT": "LATENCY",
                },
            )
        except RuntimeError as error:
            raise EngineError(f"OpenVINO cannot load the bundle's model.xml: {error}") from None
        self._request = compiled.create_infer_request()
        self._outputs, self._classes = bundle.manifest.outputs, len(bundle.manifest.classes)
        self.label = f"openvino {openvino.__version__.split('-')[0]}"
        if precision != "float32":
            self.label += f" {precision}"

    def infer(
        self, images: npt.NDArray[np.uint8], *, features: bool = False, maps_from: float | None = None
    ) -> Inference:
        """Score preprocessed images; see `worker.inference.engines.InferenceEngine.infer`."""
        wanted = [name for name in self._outputs if name != _MAP and (features or name != "features")]
        parts = [self._infer_one(images[index : index + 1], wanted, maps_from) for index in range(len(images))]
        joined = {name: np.concatenate([part[name] for part in parts]) for name in wanted}
        distributions = joined.get("class_probabilities")
        return Inference(
            probability=checked_probabilities(joined["probability"], len(images)),
            features=joined.get("features"),
            feature_maps=[part[_MAP][0] if _MAP in part else None for part in parts],
            class_probabilities=None
            if distributions is None
            else checked_distributions(distributions, len(images), self._classes),
        )

    def _infer_one(
        self, image: npt.NDArray[np.uint8], wanted: Sequence[str], maps_from: float | None
    ) -> dict[str, npt.NDArray[np.float32]]:
        try:
            # Shared: the next call overwrites the outputs, so those that are wanted are copied.
            result = self._request.infer({0: image}, share_inputs=True, share_outputs=True)
        except RuntimeError as error:
            raise EngineError(f"OpenVINO failed: {error}") from None
        copied = {name: np.array(result[name]) for name in wanted}
        if maps_from is not None and copied["probability"].item() >= maps_from:
            copied[_MAP] = np.array(result[_MAP])
        return copied
