"""A synthetic data set in HAM10000's published layout: melanomas are drawn atypical, nevi typical."""

from pathlib import Path

import pandas as pd

from trainer.data.diagnoses import DIAGNOSES
from trainer.data.readers.ham10000 import COLUMNS, IMAGE_FOLDERS, METADATA_NAME
from worker.images.opencv import cv2
from worker.synthetic.lesion import draw_lesion


def write_dataset(
    root: Path, *, melanomas: int, nevi: int, others: int = 0, images: int = 1, width: int = 64, height: int = 48
) -> Path:
    """Write metadata and images.

    Args:
        root: an existing folder.
        melanomas: lesions.
        nevi: lesions.
        others: lesions of each of the other diagnoses, which look like nevi.
        images: of each nevus; a melanoma has one.
        width: of an image in pixels.
        height: of an image in pixels.
    """
    for folder in IMAGE_FOLDERS:
        (root / folder).mkdir()
    rows = []
    rest = [dx for dx in DIAGNOSES if dx not in ("mel", "nv")]
    for lesion, dx in enumerate(["mel"] * melanomas + ["nv"] * nevi + rest * others):
        melanoma = dx == "mel"
        for image in range(images if dx == "nv" else 1):
            name = f"ISIC_{lesion:04}{image}"
            picture = draw_lesion(10 * lesion + image, width=width, height=height, atypical=melanoma)
            target = root / IMAGE_FOLDERS[(lesion + image) % 2] / f"{name}.jpg"
            assert cv2.imwrite(str(target), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
            # As in HAM10000: many nevi were never excised.
            proof = "follow_up" if dx == "nv" and lesion % 2 else "histo"
            known = {"lesion_id": f"HAM_{lesion:04}", "image_id": name, "dx": dx, "dx_type": proof}
            rows.append(dict.fromkeys(COLUMNS, "") | known)
    pd.DataFrame(rows).to_csv(root / METADATA_NAME, index=False)
    return root
