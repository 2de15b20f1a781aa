"""The data set's images of a run, preprocessed as a worker does, each decoded once."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from trainer.config import RunConfig
from trainer.data.diagnoses import LABELS, melanoma_or_nevus
from trainer.data.preprocessing import preprocessing_of
from trainer.data.readers import read_datasets
from trainer.data.resized_cache import load_inputs
from trainer.data.scan import digests
from trainer.data.splits import TRAIN, VALIDATION, images_with_split
from trainer.run_folder import RunFolder
from trainer.run_records import data_sha256

Inputs = npt.NDArray[np.uint8]


def _spread(count: int, limit: int) -> npt.NDArray[np.intp]:
    """Places of at most ``limit`` out of a list of ``count``, equally far apart."""
    return np.linspace(0, count - 1, min(count, limit)).round().astype(np.intp)


def _paths(images: pd.DataFrame, limit: int) -> list[Path]:
    return [Path(path) for path in images["path"].iloc[_spread(len(images), limit)]]


def read_images_of(run: Path, datasets: Sequence[Path]) -> pd.DataFrame:
    """The data set with each image's SHA-256 and its side of a run's split.

    Args:
        run: the run folder.
        datasets: folders of the data sets.

    Raises:
        DatasetError: the data set is not as published.
        RunError: it is not the run's.
        SplitError: the run's manifest was changed.
    """
    everything = read_datasets(datasets).images
    everything = everything.assign(sha256=digests([Path(path) for path in everything["path"]]))
    RunFolder(run).check_data(data_sha256(everything))
    return images_with_split(everything, run)


class RunImages:
    """Model inputs of a run's sides: of all diagnoses that the run was trained on.

    Args:
        datasets: folders of the data sets.
        run: the run folder.
        config: of the run.
    """

    def __init__(self, datasets: Sequence[Path], run: Path, config: RunConfig) -> None:
        self._datasets, self._run, self._config = datasets, run, config
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
            self._loaded[side] = self._load(paths)
        return self._loaded[side]

    def some_of(self, side: str, limit: int) -> Inputs:
        """At most ``limit`` images, spread over the side: neighbours in the list are often siblings."""
        images = self.of(side)
        return images[_spread(len(images), limit)]

    def melanomas_and_nevi(self, side: str, limit: int | None = None) -> tuple[Inputs, npt.NDArray[np.int64]]:
        """The images of the two-class task, and their labels, (n,): 1 for melanoma and 0 for nevus.

        Args:
            side: of the split.
            limit: of their number, spread over the side; None for all.
        """
        diagnoses = self._rows(side)["dx"].to_numpy(object)
        wanted = np.flatnonzero(np.isin(diagnoses, list(LABELS)))
        chosen = wanted if limit is None else wanted[_spread(len(wanted), limit)]
        return self.of(side)[chosen], np.array([LABELS[dx] for dx in diagnoses[chosen]], np.int64)

    @property
    def digests(self) -> list[str]:
        """SHA-256 of the file of every image of the data set, whatever its side and diagnosis."""
        found: list[str] = self._everything["sha256"].tolist()
        return found

    @property
    def side_outside_test(self) -> str:
        """The side to look at outside test: validation, or training for a run that has no other."""
        return VALIDATION if self._config.has_validation else TRAIN

    def of_every_diagnosis(self, limit: int) -> tuple[Inputs, Inputs]:
        """At most ``limit`` training images and ``limit`` others, of those diagnoses too that the run knows nothing of.

        They are spread over their sides. The others are of `side_outside_test`; where that is training too, the lesions
        are halved, for images of one lesion look alike.
        """
        training = self._everything[self._everything["split"] == TRAIN]
        others = self._everything[self._everything["split"] == self.side_outside_test]
        if self.side_outside_test == TRAIN:
            second = pd.Series(pd.factorize(training["lesion_id"])[0] % 2 == 1, index=training.index)
            training, others = training[~second], training[second]
        return self._load(_paths(training, limit)), self._load(_paths(others, limit))

    def _load(self, paths: list[Path]) -> Inputs:
        return load_inputs(paths, preprocessing_of(self._config))

    def _rows(self, side: str) -> pd.DataFrame:
        return self._known[self._known["split"] == side]

    @cached_property
    def _known(self) -> pd.DataFrame:
        return self._everything if self._config.classes == "seven" else melanoma_or_nevus(self._everything)

    @cached_property
    def _everything(self) -> pd.DataFrame:
        return read_images_of(self._run, self._datasets)
