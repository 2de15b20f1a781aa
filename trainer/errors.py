"""The errors that the trainer raises on purpose. Their texts are written for the person who trains.

TrainerError
├── InputError           a setting, a file or data do not fit (also a ValueError)
│   ├── WeightsError     initial weights cannot be had, or are not what they should be
│   └── TooFewLesionsError
├── MissingError         a file or folder is missing (also a FileNotFoundError)
├── OccupiedError        a folder holds something else (also a FileExistsError)
├── DatasetError         a data set is not in its published layout
├── SplitError           a split manifest fits neither the data nor its own hash
├── RunError             a run can neither begin nor continue in its folder
├── CheckpointError      a checkpoint is damaged or of another network
└── ExportError          a bundle is refused

The commands print these in one line. Any other error is a bug and keeps its traceback.
"""


class TrainerError(Exception):
    """Root of every error that the trainer raises on purpose."""


class InputError(TrainerError, ValueError):
    """A setting, a file or data do not fit."""


class WeightsError(InputError):
    """Initial weights cannot be had, or are not what they should be."""


class TooFewLesionsError(InputError):
    """There are too few melanoma lesions to prove a sensitivity."""


class MissingError(TrainerError, FileNotFoundError):
    """A file or folder is missing."""


class OccupiedError(TrainerError, FileExistsError):
    """A folder holds something else."""


class DatasetError(TrainerError):
    """A data set is not in its published layout."""


class SplitError(TrainerError):
    """A split manifest fits neither the data nor its own hash."""


class RunError(TrainerError):
    """A run can neither begin nor continue in its folder."""


class CheckpointError(TrainerError):
    """A checkpoint is damaged or of another network."""


class ExportError(TrainerError):
    """A bundle is refused."""
