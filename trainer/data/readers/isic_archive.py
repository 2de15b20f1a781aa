"""Read a download of the ISIC Archive: ``metadata.csv`` with ``isic_id``, and the images beside it.

https://api.isic-archive.com lists images with their attribution and licence. The archive names diagnoses in up to five
levels (``diagnosis_1`` to ``diagnosis_5``), older downloads in one (``diagnosis``).
"""

import re
from pathlib import Path

import pandas as pd

from trainer.data.readers.table import (
    DatasetTable,
    lesions_with_two_diagnoses,
    make_table,
    read_table,
    with_paths,
    without_placeholders,
)

METADATA_NAME = "metadata.csv"
#: The column that tells this layout from others.
NEEDED = ("isic_id",)
#: Columns with a diagnosis, from the finest.
_DIAGNOSES = ("diagnosis_5", "diagnosis_4", "diagnosis_3", "diagnosis_2", "diagnosis", "diagnosis_1")
#: Columns of the archive, and ours.
_RENAMED = {
    "isic_id": "image_id",
    "attribution": "dataset",
    "copyright_license": "licence",
    "age_approx": "age",
    "anatom_site_general": "localization",
    "diagnosis_confirm_type": "dx_type",
}
#: What a diagnosis begins with or contains, and HAM10000's name. The first that fits counts; an empty name is none.
_NAMES = (
    (r"metasta", ""),
    (r"^melanoma|^lentigo maligna|^superficial spreading melanoma|^nodular melanoma|^acral.*melanoma", "mel"),
    (r"epidermal nevus|nevus sebace|nevus comedon|nevus flamm|nevus anemic|nevus depigm", ""),
    (r"nevus|naevus", "nv"),
    (r"basal cell carcinoma", "bcc"),
    (r"actinic keratosis|squamous cell carcinoma in situ|bowen|intraepi?thelial carcinoma", "akiec"),
    (r"seborrheic keratosis|solar lentigo|lichen planus.like|pigmented benign keratosis|lichenoid keratosis", "bkl"),
    (r"dermatofibroma", "df"),
    (r"angioma|angiokeratoma|pyogenic granuloma|vascular lesion|haemorrhage|hemorrhage", "vasc"),
)


def read_isic_archive(root: Path) -> DatasetTable:
    """Read the table, and find the file of each image beside it or in ``images/``.

    Images that are not dermoscopic, or whose diagnosis is none of HAM10000's, are left out, and so are lesions with two
    diagnoses. The source is the archive's attribution.

    Args:
        root: folder of the download.

    Raises:
        DatasetError: see `read_table`, `with_paths` and `make_table`.
    """
    rows = read_table(root / METADATA_NAME, NEEDED)
    taken = [ours for theirs, ours in _RENAMED.items() if theirs in rows and ours in rows]
    rows = rows.drop(columns=taken).rename(columns=_RENAMED)
    if "dx_type" in rows:
        rows["dx_type"] = rows["dx_type"].replace({"histopathology": "histo"})
    left_out: dict[str, int] = {}

    def keep(kept: "pd.Series[bool]", reason: str) -> None:
        nonlocal rows
        if dropped := int((~kept).sum()):
            left_out[reason] = dropped
        rows = rows[kept]

    if "image_type" in rows:
        kind = rows["image_type"].str.strip().str.lower()
        keep(kind.isin(("dermoscopic", "")), "not dermoscopic")
    rows = rows.assign(dx=[_diagnosis(row) for _, row in rows.iterrows()])
    keep(rows["dx"] != "", "another diagnosis, or none")
    if "lesion_id" in rows:
        rows = rows.assign(lesion_id=without_placeholders(rows["lesion_id"]))
        torn = lesions_with_two_diagnoses(rows[rows["lesion_id"] != ""])
        keep(~rows["lesion_id"].isin(torn), "a lesion with two diagnoses")
    return make_table(with_paths(rows, root, [root, root / "images"]), root.resolve().name, left_out)


def _diagnosis(row: "pd.Series[str]") -> str:
    """HAM10000's name of the finest diagnosis that has one. Empty for none."""
    for column in _DIAGNOSES:
        text = row.get(column, "").strip().lower()
        for pattern, name in _NAMES:
            if text and re.search(pattern, text):
                return name
    return ""
