"""Read the HAM10000 data set in its published layout.

Tschandl, Rosendahl, Kittler, "The HAM10000 dataset, a large collection of multi-source dermatoscopic images of common
pigmented skin lesions", Scientific Data 5:180161 (2018). Licence: CC BY-NC 4.0.
"""

from pathlib import Path

import pandas as pd

from trainer.errors import DatasetError

#: Name of the data set, as its ``collection``.
NAME = "HAM10000"
LICENCE = "CC BY-NC 4.0"
METADATA_NAME = "HAM10000_metadata.csv"
IMAGE_FOLDERS = ("HAM10000_images_part_1", "HAM10000_images_part_2")
COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization", "dataset")
#: Missing images that an error names. The others are counted.
_NAMED_IN_ERROR = 20


def read_ham10000(root: Path) -> pd.DataFrame:
    """Read the metadata and find the file of each image.

    Args:
        root: folder that holds ``HAM10000_metadata.csv`` and the two image folders.

    Returns:
        One row per image of all seven diagnoses, sorted by ``image_id``, with the published columns and ``path``.

    Raises:
        DatasetError: the folder, a column, an image or a folder of images is missing, an image is listed twice, or a
            lesion has two diagnoses. Every missing column and image is named.
    """
    frame = pd.read_csv(metadata_file(root))
    if missing := [name for name in COLUMNS if name not in frame.columns]:
        raise DatasetError(
            f"{METADATA_NAME} lacks the columns {', '.join(missing)}; it has {', '.join(frame.columns)}. Use the "
            "published file unchanged."
        )
    if doubled := sorted(frame.loc[frame["image_id"].duplicated(), "image_id"]):
        raise DatasetError(f"{METADATA_NAME} lists images twice: {_shortened(doubled)}.")
    diagnoses = frame.groupby("lesion_id")["dx"].nunique()
    if torn := sorted(diagnoses.index[diagnoses > 1]):
        raise DatasetError(f"Lesions with more than one diagnosis: {_shortened(torn)}.")

    # Naming every missing image tells an interrupted copy from a wrong folder.
    found = {path.stem: path for folder in IMAGE_FOLDERS for path in (root / folder).glob("*.jpg")}
    if absent := sorted(set(frame["image_id"]) - set(found)):
        everything = len(absent) == len(frame)
        which = f"All {len(frame)}" if everything else f"{len(absent)} of {len(frame)}"
        names = "" if everything else f": {', '.join(absent)}"
        raise DatasetError(
            f"{which} images are missing under {' and '.join(IMAGE_FOLDERS)}{names}. "
            f"Unpack both published archives into {root}."
        )
    frame["path"] = frame["image_id"].map(lambda name: str(found[name]))
    return frame.sort_values("image_id", ignore_index=True)


def metadata_file(root: Path) -> Path:
    """The table of a HAM10000 folder, which tells it from any other folder.

    Raises:
        DatasetError: there is none.
    """
    if not (metadata := root / METADATA_NAME).is_file():
        raise DatasetError(
            f"{root} is not the HAM10000 folder: it has no {METADATA_NAME}. Pass the folder that holds it beside "
            f"{' and '.join(IMAGE_FOLDERS)}, as published on Harvard Dataverse."
        )
    return metadata


def _shortened(names: list[str]) -> str:
    rest = len(names) - _NAMED_IN_ERROR
    return ", ".join(names[:_NAMED_IN_ERROR]) + (f" and {rest} more" if rest > 0 else "")
