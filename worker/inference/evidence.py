"""Where a network sees evidence of melanoma: Grad-CAM in closed form, without a second pass.

Selvaraju et al., "Grad-CAM", ICCV 2017, weighs the last feature map A by the gradient of the logit z. Behind global
average pooling f = mean of A over its h w places, and a head z = w2 . relu(W1' f + b1) + b2, the gradient is

    dz/dA[y, x, c] = (1 / (h w)) sum over j with (W1' f + b1)[j] > 0 of W1[c, j] w2[j]

at every place alike, so the map is relu of the sum over c of A[y, x, c] dz/df[c], up to the factor 1 / (h w).
"""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.errors import BundleError, EngineError
from worker.images.out_of_distribution import load_arrays

Floats32 = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Head:
    """The layers behind a network's global average pooling, up to the logit of melanoma.

    Args:
        hidden: kernel of the hidden layer, (channels, units).
        bias: its bias, (units,).
        output: weights of the logit, (units,); for a bundle of seven classes the difference of melanoma and nevus.
    """

    hidden: Floats32
    bias: Floats32
    output: Floats32

    def gradient(self, features: Floats32) -> Floats32:
        """Gradient of the logit with respect to the pooled features, (channels,).

        Args:
            features: of one image, (channels,).
        """
        active = features @ self.hidden + self.bias > 0
        gradient: Floats32 = self.hidden @ np.where(active, self.output, np.float32(0))
        return gradient

    def evidence(self, features: Floats32, feature_map: Floats32) -> Floats32:
        """The evidence map, (height, width), 0 and above. All 0 where nothing speaks for melanoma.

        Args:
            features: of one image, (channels,).
            feature_map: of the same image, (height, width, channels).

        Raises:
            EngineError: the network has another number of features.
        """
        if features.shape != self.hidden.shape[:1] or feature_map.shape[-1:] != features.shape:
            raise EngineError(
                f"the network gives {features.size} features, and the bundle's head.npz has {len(self.hidden)}"
            )
        found: Floats32 = np.maximum(feature_map @ self.gradient(features), 0)
        return found

    def to_bytes(self) -> bytes:
        """An ``.npz`` of plain arrays."""
        file = io.BytesIO()
        parts = {"hidden": self.hidden, "bias": self.bias, "output": self.output}
        arrays: dict[str, Any] = {name: part.astype(np.float64) for name, part in parts.items()}
        np.savez_compressed(file, **arrays)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Head":
        """Read what `to_bytes` wrote. Nothing in it is executed.

        Raises:
            BundleError: the content is something else.
        """
        arrays = load_arrays(data, ("hidden", "bias", "output"), "weights for evidence maps")
        hidden, bias, output = (arrays[name].astype(np.float32) for name in ("hidden", "bias", "output"))
        if hidden.ndim != 2 or bias.shape != hidden.shape[1:] or output.shape != bias.shape:
            raise BundleError(
                f"The bundle's weights for evidence maps are invalid (shapes {hidden.shape}, {bias.shape} and "
                f"{output.shape}). Export the bundle again with `dermq-train export`."
            )
        return cls(hidden=hidden, bias=bias, output=output)


def to_bytes(evidence: Floats32) -> bytes:
    """An evidence map in one byte a place, row by row: 255 at its greatest value.

    Args:
        evidence: from `Head.evidence`, square.

    Returns:
        Empty where nothing speaks for melanoma: a map of nothing is not made into one of something.
    """
    greatest = float(evidence.max())
    if not greatest > 0:
        return b""
    scaled: npt.NDArray[np.uint8] = np.rint(evidence * (255 / greatest)).astype(np.uint8)
    return scaled.tobytes()
