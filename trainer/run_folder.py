"""The folder of a run: what lies in it, and whether a training may begin or continue in it.

```
config.json      the settings                   history.csv      a row for each epoch
split.csv .json  the split and its SHA-256      curves.png       the same, drawn
run.json         data, versions, first weights  best.weights.h5  the best epoch's weights
train.log        what happened when             checkpoints/     where a killed run continues
model.keras      the model, when finished       validation.csv   its predictions, written last
```

A run of the fold ``all`` has no validation: it ends with its model, and `trainer.evaluation.crossfit` writes
``validation.csv``.
"""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from pydantic import ValidationError

from trainer.config import RunConfig
from trainer.errors import InputError, MissingError, OccupiedError, RunError, SplitError
from trainer.run_records import (
    RECIPE,
    RunDescription,
    RunOrigin,
    Served,
    Teacher,
    TrainingData,
    backend,
    data_sha256,
    now,
    versions,
)
from worker.atomic_files import sweep_unfinished, write_text
from worker.inference.bundle import sha256_of
from worker.inference.metrics import BundleMetrics

#: Files of a run, beside its checkpoints. A killed run may have left any of them.
_OF_A_RUN = {
    *("config.json", "split.csv", "split.json", "run.json", "train.log", "history.csv", "curves.png"),
    *("best.weights.h5", "model.keras", "validation.csv"),
}

#: File in which a complete evaluation on the test split leaves its figures.
METRICS_NAME = "metrics.json"


class RunFolder:
    """Paths of a run, its log, and the conditions under which it may continue.

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
        #: Of `trainer.evaluation.served`: the converted network, its predictions, and a description, written last.
        self.served = path / "served"
        self.served_predictions = path / "validation-served.csv"
        self.served_description = path / "served.json"
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
        """Hold the folder. It is free again when the process ends, however it ends.

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
        """Refuse a folder that no run may begin or continue in, whatever its settings.

        Raises:
            OccupiedError: the run is finished, or the folder is a file or holds files of no run.
        """
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise OccupiedError(f"The run folder {self.path} is a file. Name a new folder.")
        if not self.begun and (others := sorted(each.name for each in self.path.iterdir() if self._is_foreign(each))):
            raise OccupiedError(
                f"The run folder {self.path} holds files of no run ({', '.join(others[:3])}). Name a new or an empty "
                "folder, or that of an interrupted run."
            )
        if self.finished:
            raise OccupiedError(
                f"The run folder {self.path} holds a finished run. Name a new folder. To train on from that run, add "
                f"--weights {self.path}."
            )

    def _is_foreign(self, path: Path) -> bool:
        """Whether it is a file that no run writes. Hidden files, such as the lock, do not count."""
        return not (path.name.startswith(".") or path.name in _OF_A_RUN or path == self.checkpoint.parent)

    def check_resumable(self, config: RunConfig) -> None:
        """Refuse to continue in a folder whose run is finished, or was begun with other settings.

        Args:
            config: the settings asked for, as they would be recorded.

        Raises:
            OccupiedError: the run is finished.
            RunError: names every setting that differs.
        """
        self.refuse_taken()
        described = self.described()
        if described.recipe != RECIPE:
            raise RunError(
                f"The run in {self.path} was begun by a version that trains differently (recipe {described.recipe}, "
                f"this is {RECIPE}). Continue with that version, or name another folder."
            )
        begun, here = described.versions["backend"], backend()
        if begun != here:
            raise RunError(
                f"The run in {self.path} was begun with the Keras backend {begun}, and this is {here}, whose dropout "
                f"draws other numbers. Continue with KERAS_BACKEND={begun}, or name another folder."
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
                    "Continue with its settings, or name another folder."
                    if self.checkpoint.exists()
                    else "It has no complete epoch. Name another folder or, if nothing trains in it, remove this one."
                )
            )

    def check_data(self, found: str) -> None:
        """Refuse another data set than the run's.

        Args:
            found: `data_sha256` of the data set at hand.

        Raises:
            RunError: it is another.
        """
        recorded = self.described().data.sha256
        if found != recorded:
            raise RunError(
                f"The run in {self.path} was begun with other data, of SHA-256 {recorded}; these have {found}. Pass "
                "the data set that it was begun with, or another run."
            )

    def check_hashes(self, manifest: pd.DataFrame) -> None:
        """Refuse a manifest whose file hashes are not those that the run began with.

        Args:
            manifest: from `trainer.data.splits.read_manifest`.

        Raises:
            SplitError: they were changed.
        """
        if data_sha256(manifest) != self.described().data.sha256:
            raise SplitError(
                f"The file hashes in {self.path / 'split.csv'} are not those that the run began with. Restore that "
                "file, or name another run."
            )

    def weights_sha256(self) -> str:
        """SHA-256 of the weights that were kept.

        Raises:
            RunError: they are gone.
        """
        if not self.best.is_file():
            raise RunError(
                f"The run {self.path} has no {self.best.name}. Restore that file, or name another finished run."
            )
        return sha256_of(self.best)

    def begin(
        self,
        config: RunConfig,
        *,
        split_sha256: str,
        data: TrainingData,
        skipped: dict[str, str],
        weights_from: str,
        teachers: tuple[Teacher, ...],
        continues_from: RunOrigin | None,
    ) -> None:
        """Write ``run.json`` and, last, ``config.json``, which marks that a run began.

        Args:
            config: the settings.
            split_sha256: as in `RunDescription`, and so are the others.
            data: the data set.
            skipped: the images left out.
            weights_from: the first weights.
            teachers: of the run.
            continues_from: an earlier run.
        """
        self.checkpoint.parent.mkdir(exist_ok=True)
        # If somebody removed config.json, it is unknown what this checkpoint belongs to.
        self.checkpoint.unlink(missing_ok=True)
        described = RunDescription(
            begun=now(),
            recipe=RECIPE,
            split_sha256=split_sha256,
            data=data,
            skipped=skipped,
            weights_from=weights_from,
            teachers=teachers,
            continues_from=continues_from,
            versions=versions(),
        )
        write_text(self.path / "run.json", described.model_dump_json(indent=2) + "\n")
        config.write(self.path)

    def described(self) -> RunDescription:
        """``run.json``.

        Raises:
            MissingError: it is gone.
            InputError: another version of dermq wrote it, or it was changed.
        """
        file = self.path / "run.json"
        if not file.is_file():
            raise MissingError(f"The run {self.path} has no {file.name}. Restore that file, or name another run.")
        try:
            return RunDescription.model_validate_json(file.read_bytes())
        except ValidationError as error:
            raise InputError(
                f"{file} cannot be used ({_first_fault(error)}): another version of dermq made the run, or the file "
                "was changed. Use that version, or train again."
            ) from None

    def metrics(self) -> BundleMetrics:
        """``metrics.json`` of an evaluated run.

        Raises:
            MissingError: the run was not evaluated.
            InputError: another version of dermq wrote it, or it was changed.
        """
        file = self.path / METRICS_NAME
        if not file.is_file():
            raise MissingError(f"The run {self.path} has no {file.name}. Run `dermq-train evaluate {self.path}` first.")
        try:
            return BundleMetrics.model_validate_json(file.read_bytes())
        except ValidationError as error:
            raise InputError(
                f"{file} cannot be used ({_first_fault(error)}): another version of dermq wrote it, or it was changed. "
                f"`dermq-train evaluate {self.path}` writes it again, which accesses the test split once more."
            ) from None

    def in_precision(self) -> Served | None:
        """``served.json``. None for a run that is served in 32-bit floats, converted when it is exported.

        Raises:
            InputError: another version of dermq wrote it, or it was changed.
        """
        if not self.served_description.is_file():
            return None
        try:
            return Served.model_validate_json(self.served_description.read_bytes())
        except ValidationError as error:
            raise InputError(
                f"{self.served_description} cannot be used ({_first_fault(error)}). Run `dermq-train serve` again."
            ) from None

    def chosen_predictions(self) -> Path:
        """The predictions that calibration and thresholds are chosen on."""
        return self.predictions if self.in_precision() is None else self.served_predictions

    def split_sha256(self) -> str:
        """SHA-256 of the split manifest, as ``split.json`` has it."""
        return str(json.loads((self.path / "split.json").read_text())["sha256"])

    def origin(self) -> RunOrigin:
        """What the run was made from, for reports and for a run that continues from it."""
        described = self.described()
        return RunOrigin(
            run=self.path.resolve().name,
            config=RunConfig.read(self.path),
            weights_from=described.weights_from,
            teachers=described.teachers,
            continues_from=described.continues_from,
        )

    def tidy(self, best_epoch: int) -> None:
        """Remove what a killed process left, and move the best epoch's weights to their place.

        Args:
            best_epoch: as in the checkpoint, counted from 1. 0 when there is none.
        """
        sweep_unfinished(self.path)
        sweep_unfinished(self.checkpoint.parent)
        for candidate in self.checkpoint.parent.glob("epoch-*.weights.h5"):
            if candidate == self.candidate(best_epoch):
                candidate.replace(self.best)
            else:
                # No checkpoint knows this epoch. It is trained again.
                candidate.unlink()

    def log(self, line: str) -> None:
        """Add a line to ``train.log``, with the time."""
        with (self.path / "train.log").open("a") as file:
            file.write(f"{now()} {line}\n")


def read_predictions(file: Path) -> pd.DataFrame:
    """A ``validation.csv``, or what a precision made of it. Names stay texts, also where they look like numbers."""
    return pd.read_csv(file, dtype=dict.fromkeys(("image_id", "lesion_id", "fold"), str))


def _first_fault(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
