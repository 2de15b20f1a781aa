"""The data set's images of a run, preprocessed as a worker does, each decoded once."""

from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from trainer.config import FitConfig
from trainer.ham10000 import LABELS, melanoma_or_nevus, read_ham10000
from trainer.images.canvas import load_inputs
from trainer.images.survey import data_sha256, digests
from trainer.run_folder import RunFolder
from trainer.splits import TRAIN, VALIDATION, images_with_split
from worker.images.preprocess import Preprocessing

Inputs = npt.NDArray[np.uint8]


def _spread(count: int, limit: int) -> npt.NDArray[np.intp]:
    """Places of at most ``limit`` out of a list of ``count``, equally far apart."""
    return np.linspace(0, count - 1, min(count, limit)).round().astype(np.intp)


def read_images_of(run: Path, dataset: Path) -> pd.DataFrame:
    """The data set with each image's SHA-256 and its side of a run's split.

    Args:
        run: the run folder.
        dataset: the HAM10000 folder.

    Raises:
        DatasetError: the data set is not as published.
        RunError: it is not the run's.
        SplitError: the run's manifest was changed.
    """
    everything = read_ham10000(dataset)
    everything = everything.assign(sha256=digests([Path(path) for path in everything["path"]]))
    RunFolder(run).check_data(data_sha256(everything))
    return images_with_split(everything, run)


class RealImages:
    """Model inputs of a run's sides: of all diagnoses that the run was trained on.

    Args:
        dataset: the HAM10000 folder.
        run: the run folder.
        config: of the run.
    """

    def __init__(self, dataset: Path, run: Path, config: FitConfig) -> None:
        self._dataset, self._run, self._config = dataset, run, config
        self._loaded: dict[str, Inputs] = {}

    def of(self, side: str) -> Inputs:
        """All images of a side, (n, size, size, 3), uint8, RGB.

        Raises:
            DatasetError: an image cannot be decoded; names it.
            RunError: the data set is not the run's.
            SplitError: the run's manifest was changed.
        """
        if side not in self._loaded:
            paths = [Path(path) for path in self._rows(side)["path"]]
            self._loaded[side] = load_inputs(paths, Preprocessing(size=self._config.size))
        return self._loaded[side]

    def some_of(self, side: str, limit: int) -> Inputs:
        """At most ``limit`` images, spread over the side: neighbours in the list are often siblings."""
        images = self.of(side)
        return images[_spread(len(images), limit)]

    def melanomas_and_nevi(self, side: str) -> tuple[Inputs, npt.NDArray[np.int64]]:
        """The images of the two-class task, and their labels, (n,): 1 for melanoma and 0 for nevus."""
        diagnoses = self._rows(side)["dx"]
        wanted = diagnoses.isin(LABELS).to_numpy()
        return self.of(side)[wanted], np.array(diagnoses[wanted].map(LABELS), np.int64)

    @property
    def to_look_at(self) -> str:
        """The side to look at outside test: validation, or training for a run that has no other."""
        return VALIDATION if (self._everything["split"] == VALIDATION).any() else TRAIN

    def of_every_diagnosis(self, side: str, limit: int, *, beside: int = 0) -> Inputs:
        """At most ``limit`` images of a side, spread over it, of those diagnoses too that the run knows nothing of.

        Args:
            side: of the split.
            limit: of their number.
            beside: leave out what a call with this limit gives.
        """
        paths = self._everything.loc[self._everything["split"] == side, "path"]
        if beside:
            paths = paths.drop(paths.index[_spread(len(paths), beside)])
        chosen = paths.iloc[_spread(len(paths), limit)]
        return load_inputs([Path(path) for path in chosen], Preprocessing(size=self._config.size))

    def _rows(self, side: str) -> pd.DataFrame:
        return self._known[self._known["split"] == side]

    @cached_property
    def _known(self) -> pd.DataFrame:
        return self._everything if self._config.classes == "seven" else melanoma_or_nevus(self._everything)

    @cached_property
    def _everything(self) -> pd.DataFrame:
        return read_images_of(self._run, self._dataset)
