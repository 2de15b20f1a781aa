"""Recognise the layout of a data set, and join several into one table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from trainer.data.readers import ham10000, isic_archive, labelled_folder, more_dermoscopy
from trainer.data.readers.table import DatasetTable, lesions_with_two_diagnoses, make_table, read_table, shortened
from trainer.errors import DatasetError


@dataclass(frozen=True, kw_only=True)
class Datasets:
    """Several data sets as one.

    Args:
        images: rows with `trainer.data.readers.table.COLUMNS`, sorted by ``image_id``.
        left_out: number of images that are not used, by data set and reason.
    """

    images: pd.DataFrame
    left_out: dict[str, int]


def read_datasets(folders: Sequence[Path]) -> Datasets:
    """Read data sets. An image that an earlier data set has too, by name, is left out of a later one.

    Args:
        folders: of one layout each, at least one.

    Raises:
        DatasetError: a folder is of no known layout, or see its reader; two data sets have one name, or one lesion with
            different diagnoses.
    """
    names = [folder.resolve().name for folder in folders]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise DatasetError(f"Two data sets are in folders named {', '.join(doubled)}. Rename one, or name each once.")
    known: set[str] = set()
    left_out: dict[str, int] = {}
    parts = []
    for folder in folders:
        table = require_dataset(folder)(folder)
        again = table.images["image_id"].isin(known)
        found = {**table.left_out, **({"already in another data set": int(again.sum())} if again.any() else {})}
        left_out |= {f"{folder.resolve().name}: {reason}": count for reason, count in found.items()}
        parts.append(table.images[~again])
        known |= set(table.images["image_id"])
    images = pd.concat(parts).sort_values("image_id", ignore_index=True)
    if torn := lesions_with_two_diagnoses(images):
        raise DatasetError(f"Lesions with different diagnoses in two data sets: {shortened(torn)}.")
    return Datasets(images=images, left_out=left_out)


def require_dataset(folder: Path) -> Callable[[Path], DatasetTable]:
    """The reader of a folder.

    Raises:
        DatasetError: its layout is none that is known.
    """
    if (folder / ham10000.METADATA_NAME).is_file():
        return _read_ham10000
    if (folder / more_dermoscopy.METADATA_NAME).is_file():
        columns = read_table(folder / more_dermoscopy.METADATA_NAME, ()).columns
        if set(isic_archive.NEEDED) <= set(columns):
            return isic_archive.read_isic_archive
        if set(more_dermoscopy.NEEDED) <= set(columns):
            return more_dermoscopy.read_more_dermoscopy
        raise DatasetError(
            f"{folder / more_dermoscopy.METADATA_NAME} has neither a column isic_id nor the columns "
            f"{', '.join(more_dermoscopy.NEEDED)}. It has {', '.join(columns)}."
        )
    if (folder / labelled_folder.LABELS_NAME).is_file():
        return labelled_folder.read_labelled_folder
    raise DatasetError(
        f"{folder} is not the HAM10000 folder, nor another data set: it has no {ham10000.METADATA_NAME}, no "
        f"{more_dermoscopy.METADATA_NAME} and no {labelled_folder.LABELS_NAME}. Pass the folder that holds one of "
        "them; docs/data-sets.md describes the layouts."
    )


def _read_ham10000(folder: Path) -> DatasetTable:
    rows = ham10000.read_ham10000(folder)
    return make_table(rows.assign(licence=ham10000.LICENCE, geometry="whole"), ham10000.NAME)
