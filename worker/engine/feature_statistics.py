"""How far an image is from everything the model was trained on, by its pooled features.

The features of the training images are described by probabilistic principal components (Tipping & Bishop, J. R. Stat.
Soc. B 61:611, 1999): a few directions with a variance each, and one variance for all the rest. The distance is
Mahalanobis' under that description: some thousand images do not tell a full covariance of a thousand features.
"""

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from worker.errors import BundleError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class FeatureStatistics:
    """Where the training images lie.

    Args:
        mean: of the features, (channels,).
        axes: principal directions, orthonormal, (components, channels).
        variances: along them, (components,), all positive.
        rest: variance along every other direction, positive.
    """

    mean: Floats
    axes: Floats
    variances: Floats
    rest: float

    def distance(self, features: npt.NDArray[np.floating]) -> Floats:
        """Mahalanobis distance from the training images.

        Args:
            features: pooled features, (n, channels).

        Returns:
            (n,), 0 at the mean; the root of the number of channels on average for images like those of training.
        """
        offset = np.asarray(features, np.float64) - self.mean
        along = offset @ self.axes.T
        beyond = np.maximum((offset**2).sum(axis=1) - (along**2).sum(axis=1), 0)
        distances: Floats = np.sqrt((along**2 / self.variances).sum(axis=1) + beyond / self.rest)
        return distances

    def save(self, path: Path) -> None:
        """Write them as an ``.npz`` of plain arrays, 32-bit floats."""
        arrays = {"mean": self.mean, "axes": self.axes, "variances": self.variances, "rest": np.array(self.rest)}
        with path.open("wb") as file:
            np.savez(file, **{name: values.astype(np.float32) for name, values in arrays.items()})  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> "FeatureStatistics":
        """Read what `save` wrote; nothing in the file is executed.

        Raises:
            BundleError: it is not such a file.
        """
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                mean, axes, variances, rest = (
                    arrays[name].astype(np.float64) for name in ("mean", "axes", "variances", "rest")
                )
        except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
            raise BundleError(
                f"Received: {path.name}, which holds no feature statistics ({type(error).__name__}). Expected: what "
                "`dermq-train export` writes. Export the bundle again."
            ) from None
        return cls(mean=mean, axes=axes, variances=variances, rest=float(rest))
