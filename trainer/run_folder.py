"""The folder of a run: what lies in it, and whether a training may begin or go on in it.

```
config.json      the settings                   history.csv      a row for each epoch
split.csv .json  the split and its SHA-256      curves.png       the same, drawn
run.json         data, versions, first weights  best.weights.h5  the best epoch's weights
train.log        what happened when             checkpoints/     where a killed run goes on
model.keras      the model, when finished       validation.csv   its predictions; last, so it marks the end
```

A run of the fold ``all`` has no validation: it ends with its model, and `trainer.evaluation.crossfit` writes
``validation.csv``.
"""

import fcntl
import json
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd

from trainer.config import RunConfig
from trainer.data.scan import data_sha256
from trainer.data.splits import SplitError
from worker.atomic_files import sweep_unfinished, write_text
from worker.inference.bundle import sha256_of

#: Packages whose version decides the last digits of a run.
_PACKAGES = ("dermq", "keras", "numpy", "opencv-python-headless", "scikit-learn")
#: Package behind each of Keras' backends.
_BACKEND_PACKAGES = {"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}
#: Files of a run, beside its checkpoints. A killed run may have left any of them.
_OF_A_RUN = {
    *("config.json", "split.csv", "split.json", "run.json", "train.log", "history.csv", "curves.png"),
    *("best.weights.h5", "model.keras", "validation.csv"),
}

#: Raised when code changes what the same settings train, so that runs from before and after are not taken for alike.
RECIPE = 3


class RunError(Exception):
    """A run can neither begin nor go on in its folder; the text says why and what to do."""


class RunFolder:
    """Paths of a run, its log, and the conditions under which it may go on.

    Args:
        path: of the folder; made by `lock`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.history = path / "history.csv"
        self.curves = path / "curves.png"
        self.best = path / "best.weights.h5"
        self.model = path / "model.keras"
        self.predictions = path / "validation.csv"
        self.checkpoint = path / "checkpoints" / "last.npz"

    @property
    def begun(self) -> bool:
        """Whether a training began here."""
        return (self.path / "config.json").exists()

    @property
    def finished(self) -> bool:
        """Whether the training has ended; of a run without validation the model marks that."""
        if self.predictions.exists():
            return True
        return self.begun and self.model.exists() and not RunConfig.read(self.path).has_validation

    def candidate(self, epoch: int) -> Path:
        """Weights of an epoch that are the best so far, until a checkpoint says so too."""
        return self.path / "checkpoints" / f"epoch-{epoch:04}.weights.h5"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder; it is free again when the process ends, however it ends.

        Raises:
            RunError: another process trains in it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(
                    f"Another process trains in {self.path}. Wait for it, or choose another folder."
                ) from None
            yield

    def refuse_taken(self) -> None:
        """Refuse a folder that no run may begin or go on in, whatever its settings.

        Raises:
            FileExistsError: the run is finished, or the folder is a file or holds what is of no run.
        """
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise FileExistsError(f"Received: {self.path} as the run folder, which is a file. Expected: a new folder.")
        if not self.begun and (others := sorted(each.name for each in self.path.iterdir() if self._is_foreign(each))):
            raise FileExistsError(
                f"Received: {self.path} as the run folder, which holds other things ({', '.join(others[:3])}). "
                "Expected: a new or an empty folder, or that of a run."
            )
        if self.finished:
            raise FileExistsError(
                f"Received: run folder {self.path}, which holds a finished run. Expected: a new one, or a run that was "
                f"interrupted. To go on from a finished run: a new folder, and --weights {self.path}."
            )

    def _is_foreign(self, path: Path) -> bool:
        """Whether it is none of what a run writes; hidden files, its lock among them, count for nothing."""
        return not (path.name.startswith(".") or path.name in _OF_A_RUN or path == self.checkpoint.parent)

    def check_resumable(self, config: RunConfig) -> None:
        """Refuse to go on in a folder whose run is finished, or was begun with other settings.

        Args:
            config: the settings asked for, as they would be recorded.

        Raises:
            FileExistsError: the run is finished.
            RunError: names every setting that differs.
        """
        self.refuse_taken()
        if not (self.path / "run.json").exists():
            raise RunError(
                f"The run in {self.path} was begun by a version that wrote no checkpoints and cannot go on. Choose "
                "another folder."
            )
        if (found := recipe_of(self.path)) != RECIPE:
            raise RunError(
                f"The run in {self.path} was begun by code that trains otherwise (recipe {found}, this is {RECIPE}). "
                "Go on with that version, or choose another folder."
            )
        begun, here = self.described().get("versions", {}).get("backend"), _backend()
        if begun not in (None, here):
            raise RunError(
                f"The run in {self.path} was begun on Keras' backend {begun}, this is {here}: its dropout draws other "
                f"numbers. Go on with KERAS_BACKEND={begun}, or choose another folder."
            )
        recorded = RunConfig.read(self.path)
        if different := recorded.differences(config):
            listed = "\n".join(
                f"  --{name.replace('_', '-')}: the run has {old!r}, asked for is {new!r}"
                for name, (old, new) in different.items()
            )
            raise RunError(
                f"The run in {self.path} was begun with other settings:\n{listed}\n"
                + (
                    "Go on with its settings, or choose another folder."
                    if self.checkpoint.exists()
                    else "No epoch of it is done. Choose another folder or, if nothing trains in it, remove this one."
                )
            )

    def check_data(self, found: str) -> None:
        """Refuse another data set than the run's; runs from before it was recorded take any.

        Args:
            found: `trainer.data.scan.data_sha256` of the data set at hand.

        Raises:
            RunError: it is another.
        """
        recorded = self.described().get("data", {}).get("sha256", found)
        if found != recorded:
            raise RunError(
                f"The run in {self.path} was begun with other data: their SHA-256 was {recorded}, now it is {found}. "
                "Pass the data set that it was begun with, or choose another run."
            )

    def check_hashes(self, manifest: pd.DataFrame) -> None:
        """Refuse a manifest whose hashes of files are not those that the run began with; one without hashes passes.

        Args:
            manifest: from `trainer.data.splits.read_manifest`.

        Raises:
            SplitError: they were changed.
        """
        recorded = self.described().get("data", {}).get("sha256")
        if recorded and "sha256" in manifest and data_sha256(manifest) != recorded:
            raise SplitError(
                f"The hashes of files in {self.path / 'split.csv'} are not those that the run began with. Restore it, "
                "or choose another run."
            )

    def weights_sha256(self) -> str:
        """SHA-256 of the weights that were kept.

        Raises:
            RunError: they are gone.
        """
        if not self.best.is_file():
            raise RunError(
                f"Received: run {self.path} without {self.best.name}. Expected: the whole folder of a finished run; it "
                "is told apart by its weights."
            )
        return sha256_of(self.best)

    def begin(self, config: RunConfig, described: dict[str, Any]) -> None:
        """Write what a run is made from; ``config.json`` last, for it marks that a run began.

        Args:
            config: the settings.
            described: of data and first weights; the versions are added.
        """
        self.checkpoint.parent.mkdir(exist_ok=True)
        # Of a run whose settings somebody took away: it cannot be told what it belongs to.
        self.checkpoint.unlink(missing_ok=True)
        everything = {"begun": now(), "recipe": RECIPE, **described, "versions": versions()}
        write_text(self.path / "run.json", json.dumps(everything, indent=2) + "\n")
        config.write(self.path)

    def described(self) -> dict[str, Any]:
        """What `begin` wrote; nothing for runs that are older than ``run.json``."""
        file = self.path / "run.json"
        found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        return found

    def origin(self) -> dict[str, Any]:
        """What a run that is made from this one notes of it, so that it can be told without this folder.

        Returns:
            ``run`` (name of the folder), ``config``, ``weights_from``, ``averaged`` (run, seed and ``weights_sha256``
            of each run that it is the average of), ``teachers`` (run, ``model_sha256`` and settings of each run that
            taught it), and as ``continues_from`` the same of the run that it went on from itself, null for none.
        """
        described = self.described()
        return {
            "run": self.path.resolve().name,
            "config": asdict(RunConfig.read(self.path)),
            "weights_from": described.get("weights_from"),
            "averaged": described.get("averaged", []),
            "teachers": described.get("teachers", []),
            "continues_from": described.get("continues_from"),
        }

    def tidy(self, best_epoch: int) -> None:
        """Take away what a killed process left, and put the best epoch's weights in their place.

        Args:
            best_epoch: as the checkpoint has it, counted from 1; 0 when there is none.
        """
        sweep_unfinished(self.path)
        sweep_unfinished(self.checkpoint.parent)
        for candidate in self.checkpoint.parent.glob("epoch-*.weights.h5"):
            if candidate == self.candidate(best_epoch):
                candidate.replace(self.best)
            else:
                # Of an epoch that no checkpoint knows: it is trained again.
                candidate.unlink()

    def log(self, line: str) -> None:
        """Add a line to ``train.log``, with the time."""
        with (self.path / "train.log").open("a") as file:
            file.write(f"{now()} {line}\n")


def lineage(run: dict[str, Any]) -> list[dict[str, Any]]:
    """A run and those that it goes on from, oldest first.

    Args:
        run: as `RunFolder.origin` tells it.
    """
    steps = [run]
    while earlier := steps[0].get("continues_from"):
        steps.insert(0, earlier)
    return steps


def recipe_of(run: Path) -> int:
    """Number of the recipe that a run was begun by; 1 for runs from before it was recorded."""
    file = run / "run.json"
    return int(json.loads(file.read_text()).get("recipe", 1)) if file.exists() else 1


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Versions of what a run's last digits depend on."""
    backend = _backend()
    packages = (*_PACKAGES, _BACKEND_PACKAGES[backend])
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "backend": backend,
        **{package: _version(package) for package in packages},
    }


def _backend() -> str:
    # Here, because it takes seconds, and what only reads runs needs no network.
    import keras

    return str(keras.config.backend())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed as a package"
