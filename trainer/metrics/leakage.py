"""Leakage check: whether lesions, files or photographs of the test split are also in training or validation."""

from pathlib import Path

import numpy as np
import pandas as pd

from trainer.data.near_duplicates import near_duplicate_pairs
from trainer.data.scan import scan_images
from trainer.data.splits import TEST, TRAIN, VALIDATION
from trainer.metrics.figures import Compared, Leakage

#: Near-duplicate pairs that a report names.
_NAMED = 20


def check_leakage(images: pd.DataFrame, cache: Path) -> Leakage:
    """Compare the test split with the images that a run was trained and validated on.

    Args:
        images: rows of the data set with ``image_id``, ``lesion_id``, ``split`` and ``path``. All diagnoses, because a
            run may have been trained on them.
        cache: folder that keeps thumbnails between calls.
    """
    images = images[images["split"].isin((TRAIN, VALIDATION, TEST))]
    held_out = (images["split"] == TEST).to_numpy()
    lesions = set(images.loc[held_out, "lesion_id"]) & set(images.loc[~held_out, "lesion_id"])
    scan = scan_images([Path(path) for path in images["path"]], cache)
    digests = np.array(scan.sha256)
    files = set(digests[held_out]) & set(digests[~held_out])
    pairs = near_duplicate_pairs(scan.thumbnails)
    across = pairs[held_out[pairs[:, 0]] != held_out[pairs[:, 1]]]
    names = images["image_id"].to_numpy(object)
    return Leakage(
        compared=Compared(test=int(held_out.sum()), others=int((~held_out).sum())),
        sides=tuple(side for side in (TRAIN, VALIDATION) if (images["split"] == side).any()),
        lesions=len(lesions),
        files=len(files),
        near_duplicates=len(across),
        pairs=tuple((str(names[first]), str(names[second])) for first, second in across[:_NAMED]),
        clean=not (lesions or files or len(across)),
    )
