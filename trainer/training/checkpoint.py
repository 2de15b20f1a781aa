"""Everything that decides how a training goes on, in one file that is always whole.

Written at the end of each epoch: the network's variables with the seeds of its dropout, the optimizer's with its
moments, its moving average and its step, and what has been found so far. The batches need nothing, they follow from
seed and epoch. A process that is killed loses the epoch it was in.
"""

import json
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from worker.atomic_files import replace_file


class CheckpointError(Exception):
    """A checkpoint does not fit the network, or is damaged."""


@dataclass(kw_only=True)
class Progress:
    """How far a training has come.

    Args:
        epoch: epochs completed.
        best_auc: validation AUC of the epoch that is kept, minus infinity before the first.
        best_epoch: its number, counted from 1; 0 before the first.
        history: a row for each completed epoch, as in ``history.csv``.
    """

    epoch: int = 0
    best_auc: float = float("-inf")
    best_epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)

    def given_up(self, patience: int, *, since: int) -> bool:
        """Whether too many epochs have passed without a better one.

        Args:
            patience: epochs that are waited for; 0 waits for ever.
            since: epoch from which they are counted, when the best one lies before it.
        """
        return 0 < patience <= self.epoch - max(self.best_epoch, since)


def save_checkpoint(path: Path, model: keras.Model, progress: Progress) -> None:
    """Replace the checkpoint.

    Args:
        path: ending in ``.npz``.
        model: compiled, as trained.
        progress: to be kept with it.
    """
    arrays = {
        f"{kind}/{number}": keras.ops.convert_to_numpy(variable)
        for kind, variables in _variables(model).items()
        for number, variable in enumerate(variables)
    }
    with replace_file(path) as unfinished, unfinished.open("wb") as file:
        np.savez(file, progress=np.array(json.dumps(asdict(progress))), **arrays)


def read_progress(path: Path) -> Progress:
    """How far the training of a checkpoint had come; the beginning, where there is none.

    Raises:
        CheckpointError: the file is damaged.
    """
    if not path.exists():
        return Progress()
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as saved:
            return Progress(**json.loads(str(saved["progress"])))
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} is damaged ({error}). Begin a new run.") from None


def restore_checkpoint(path: Path, model: keras.Model, *, optimizer: bool) -> None:
    """Set the variables of a compiled model to those of a checkpoint.

    Args:
        path: of the checkpoint.
        model: compiled for the stage that is to go on.
        optimizer: whether the stage is in the middle; a stage that begins has an optimizer of its own.

    Raises:
        CheckpointError: the checkpoint is of another network, or damaged.
    """
    wanted = _variables(model)
    if not optimizer:
        wanted.pop("optimizer")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as saved:
            for kind, variables in wanted.items():
                _assign(kind, variables, [saved[name] for name in saved.files if name.startswith(f"{kind}/")])
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} is damaged ({error}). Begin a new run.") from None


def _assign(kind: str, variables: list[Any], arrays: list[npt.NDArray[Any]]) -> None:
    found, expected = [array.shape for array in arrays], [tuple(variable.shape) for variable in variables]
    if found != expected:
        raise CheckpointError(
            f"Received: a checkpoint with {len(found)} arrays for the {kind}. Expected: {len(expected)}, in the shapes "
            "of this network. It was written by another version or for another network; begin a new run."
        )
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def _variables(model: keras.Model) -> dict[str, list[Any]]:
    # `variables` and not `weights`: the seeds of dropout are among them.
    metrics = {id(variable) for variable in model.metrics_variables}
    return {
        "model": [variable for variable in model.variables if id(variable) not in metrics],
        "optimizer": list(model.optimizer.variables),
    }
