"""Read a folder of images with ``labels.csv``: the layout for a clinic's own images (docs/data-sets.md)."""

from pathlib import Path

from trainer.data.external_labels import read_external
from trainer.data.readers.table import DatasetTable, make_table, without_placeholders
from trainer.errors import DatasetError, InputError, MissingError

LABELS_NAME = "labels.csv"


def read_labelled_folder(root: Path) -> DatasetTable:
    """Read the labels, and find the files that they name.

    The names of images, lesions and patients begin with that of the folder: another clinic may use the same numbers.

    Args:
        root: holds ``labels.csv``, as for `trainer.data.external_labels.read_external`, and the images.

    Raises:
        DatasetError: see `read_external` and `make_table`.
    """
    name = root.resolve().name
    try:
        rows = read_external(root, root / LABELS_NAME, both_classes=False)
    except (InputError, MissingError) as error:
        raise DatasetError(str(error)) from None
    if "patient_id" in rows:
        rows["patient_id"] = without_placeholders(rows["patient_id"].fillna(""))
    for column in ("image_id", "lesion_id", "patient_id"):
        if column in rows:
            rows[column] = rows[column].where(rows[column] == "", name + "/" + rows[column])
    return make_table(rows, name)
