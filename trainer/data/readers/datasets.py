"""Recognise the layout of a data set, and join several into one table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
    parts: list[pd.DataFrame] = []
    for folder in folders:
        table = require_dataset(folder)(folder)
        again = table.images["image_id"].isin(known)
        if again.any():
            table = replace(table, images=_joined(table.images, parts))
        found = {**table.left_out, **({"already in another data set": int(again.sum())} if again.any() else {})}
        left_out |= {f"{folder.resolve().name}: {reason}": count for reason, count in found.items()}
        parts.append(table.images[~again].copy())
        known |= set(table.images["image_id"])
    images = pd.concat(parts).sort_values("image_id", ignore_index=True)
    if torn := lesions_with_two_diagnoses(images):
        raise DatasetError(
            f"Lesions with different diagnoses in two data sets: {shortened(torn)}. If two clinics number their "
            "lesions alike, put the name of the clinic before the numbers."
        )
    return Datasets(images=images, left_out=left_out)


def _joined(images: pd.DataFrame, earlier: list[pd.DataFrame]) -> pd.DataFrame:
    """Name lesions and patients as the data sets before do, where they hold the same images.

    Otherwise the other images of the lesion, or of the patient, would lose their tie to the image that is left out. An
    earlier image whose patient is unknown gets the patient of the later table.
    """
    before = pd.concat(earlier).set_index("image_id")
    shared = images[images["image_id"].isin(before.index)].set_index("image_id")
    lesions = dict(zip(shared["lesion_id"], before.loc[shared.index, "lesion_id"], strict=True))
    patients = {
        theirs: ours or theirs
        for theirs, ours in zip(shared["patient_id"], before.loc[shared.index, "patient_id"], strict=True)
        if theirs
    }
    for part in earlier:
        unknown = (part["patient_id"] == "") & part["image_id"].isin(shared.index)
        part.loc[unknown, "patient_id"] = part.loc[unknown, "image_id"].map(shared["patient_id"])
    return images.assign(
        lesion_id=images["lesion_id"].map(lambda name: lesions.get(name, name)),
        patient_id=images["patient_id"].map(lambda name: patients.get(name, name)),
    )


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
        if (folder / labelled_folder.LABELS_NAME).is_file():
            return labelled_folder.read_labelled_folder
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
    return make_table(rows.assign(licence=ham10000.LICENCE, geometry="whole"), ham10000.NAME, published=True)
