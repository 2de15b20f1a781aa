"""Read a folder with ``metadata.csv`` (``image_id, dx, source, ...``) and ``images/``.

The layout of a collection of ISIC 2017, ISIC 2020 and Barcelona images that dermq is trained on. Sources: Codella et
al., "Skin lesion analysis toward melanoma detection: a challenge at the 2017 ISBI" (2018); Combalia et al., "BCN20000:
dermoscopic lesions in the wild" (2019); Rotemberg et al., "A patient-centric dataset of images and metadata for
identifying melanomas using clinical context" (2021).
"""

from pathlib import Path

from trainer.data.readers.table import DatasetTable, make_table, read_table, with_paths

METADATA_NAME = "metadata.csv"
#: Columns that tell this layout from others.
NEEDED = ("image_id", "dx", "source")


def read_more_dermoscopy(root: Path) -> DatasetTable:
    """Read the table, and find the file of each image in ``images/``.

    Args:
        root: holds ``metadata.csv`` with `NEEDED`, and perhaps ``lesion_id``, ``patient_id``, ``geometry``,
            ``licence``, ``age``, ``sex`` and ``localization``.

    Raises:
        DatasetError: see `read_table`, `with_paths` and `make_table`.
    """
    rows = read_table(root / METADATA_NAME, NEEDED)
    rows = rows.drop(columns="dataset", errors="ignore").rename(columns={"source": "dataset"})
    return make_table(with_paths(rows, root, [root / "images"]), root.resolve().name)
