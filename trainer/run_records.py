"""What a run records of itself in ``run.json`` and ``served.json``: what it was made from, and by which versions."""

import hashlib
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import pandas as pd
from pydantic import Field

from trainer.config import RunConfig
from worker.inference.bundle import PrecisionCost
from worker.inference.metrics import Figures
from worker.inference.precision import Precision

#: Packages whose version decides the last digits of a run.
_PACKAGES = ("dermq", "keras", "numpy", "opencv-python-headless", "scikit-learn")
#: Package behind each of Keras' backends.
_BACKEND_PACKAGES = {"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}
#: Version of the training code. Raise it when the same settings train another model, so that runs from before and after
#: are not compared.
RECIPE = 3


class Teacher(Figures):
    """A run that taught another one."""

    run: str
    model_sha256: str
    backbone: str
    size: int
    classes: Literal["two", "seven"]


class RunOrigin(Figures):
    """What a run was made from, without paths, so that it is known without the run's folder.

    Args:
        run: name of the folder.
        config: its settings.
        weights_from: where the first weights came from.
        teachers: the runs that taught it.
        continues_from: the same of the run whose weights it started from.
    """

    run: str
    config: RunConfig
    weights_from: str
    teachers: tuple[Teacher, ...] = ()
    continues_from: "RunOrigin | None" = None

    def lineage(self) -> "list[RunOrigin]":
        """This run and those that it continues from, oldest first."""
        return [*(self.continues_from.lineage() if self.continues_from else []), self]


class TrainingData(Figures):
    """The data set that a run was trained on: its number of images and its `data_sha256`."""

    images: int
    sha256: str


class RunDescription(Figures):
    """``run.json``: what a run was made from, and by which versions.

    Args:
        begun: when, in UTC.
        recipe: version of the training code.
        split_sha256: of the split manifest.
        data: the data set.
        skipped: what is wrong with each image that was left out because it does not decode.
        weights_from: as in `RunOrigin`, and so are ``teachers`` and ``continues_from``.
        versions: of what the last digits depend on.
    """

    begun: str
    recipe: int
    split_sha256: str
    data: TrainingData
    skipped: dict[str, str] = Field(default_factory=dict)
    weights_from: str
    teachers: tuple[Teacher, ...] = ()
    continues_from: RunOrigin | None = None
    versions: dict[str, str]


class Served(Figures):
    """``served.json``: the precision that a run is served in, and what it costs. No cost for 32-bit floats."""

    precision: Precision
    cost: PrecisionCost | None = None


def data_sha256(images: pd.DataFrame) -> str:
    """SHA-256 of a data set: of its ``image_id,lesion_id,dx,sha256`` lines in the order of ``image_id``."""
    rows = images.sort_values("image_id")[["image_id", "lesion_id", "dx", "sha256"]]
    return hashlib.sha256(rows.to_csv(index=False, lineterminator="\n").encode()).hexdigest()


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Versions of everything that the last digits of a run depend on."""
    used = backend()
    packages = (*_PACKAGES, _BACKEND_PACKAGES[used])
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "backend": used,
        **{package: _version(package) for package in packages},
    }


def backend() -> str:
    """Name of the backend that Keras computes with."""
    # Importing Keras takes seconds, and commands that only read runs do not need it.
    import keras

    return str(keras.config.backend())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed as a package"
