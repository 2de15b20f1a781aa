"""Everything that a training needs to continue, in one file that is always complete.

Written at the end of each epoch: the network's variables with the seeds of its dropout, the optimizer's variables, and
the progress so far. Batches follow from seed and epoch. A process that is killed loses the epoch that it was in.
"""

import json
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from trainer.errors import CheckpointError
from worker.atomic_files import replace_file


@dataclass(kw_only=True)
class Progress:
    """The progress of a training.

    Args:
        epoch: epochs completed.
        best_auc: validation AUC of the epoch that is kept. Minus infinity before the first.
        best_epoch: its number, counted from 1. 0 before the first.
        history: a row for each completed epoch, as in ``history.csv``.
    """

    epoch: int = 0
    best_auc: float = float("-inf")
    best_epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)

    def given_up(self, patience: int, *, since: int) -> bool:
        """Whether too many epochs have passed without a better one.

        Args:
            patience: allowed number of epochs. 0 for no limit.
            since: epoch from which they are counted, if the best one is earlier.
        """
        return 0 < patience <= self.epoch - max(self.best_epoch, since)


def save_checkpoint(path: Path, model: keras.Model, progress: Progress) -> None:
    """Replace the checkpoint.

    Args:
        path: ending in ``.npz``.
        model: compiled, as trained.
        progress: to save with it.
    """
    arrays = {
        f"{kind}/{number}": keras.ops.convert_to_numpy(variable)
        for kind, variables in _variables(model).items()
        for number, variable in enumerate(variables)
    }
    with replace_file(path) as unfinished, unfinished.open("wb") as file:
        np.savez(file, progress=np.array(json.dumps(asdict(progress))), **arrays)


def read_progress(path: Path) -> Progress:
    """Progress of a checkpoint. That of the beginning if there is none.

    Raises:
        CheckpointError: the file is damaged.
    """
    if not path.exists():
        return Progress()
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as saved:
            return Progress(**json.loads(str(saved["progress"])))
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} is damaged ({error}). Start a new run.") from None


def restore_checkpoint(path: Path, model: keras.Model, *, optimizer: bool) -> None:
    """Set the variables of a compiled model to those of a checkpoint.

    Args:
        path: of the checkpoint.
        model: compiled for the stage that continues.
        optimizer: whether a stage continues. A new stage has a new optimizer.

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
        raise CheckpointError(f"{path} is damaged ({error}). Start a new run.") from None


def _assign(kind: str, variables: list[Any], arrays: list[npt.NDArray[Any]]) -> None:
    found, expected = [array.shape for array in arrays], [tuple(variable.shape) for variable in variables]
    if found != expected:
        raise CheckpointError(
            f"The checkpoint has {len(found)} arrays for the {kind}, and this network needs {len(expected)} of given "
            "shapes. Another version wrote it, or it is of another network. Start a new run."
        )
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def _variables(model: keras.Model) -> dict[str, list[Any]]:
    # `variables` and not `weights`, because they include the seeds of dropout.
    metrics = {id(variable) for variable in model.metrics_variables}
    return {
        "model": [variable for variable in model.variables if id(variable) not in metrics],
        "optimizer": list(model.optimizer.variables),
    }
