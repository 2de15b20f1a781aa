"""Is anything of the test split in training or validation? Lesions, files, and pictures of the same moment."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from trainer.data.near_duplicates import near_duplicate_pairs
from trainer.data.scan import survey
from trainer.data.splits import TEST, TRAIN, VALIDATION

#: Near-duplicate pairs that a report names.
_NAMED = 20


def check_leakage(images: pd.DataFrame, cache: Path) -> dict[str, Any]:
    """Compare the test split with the images that a run was trained and validated on.

    Args:
        images: rows of the data set with ``image_id``, ``lesion_id``, ``split`` and ``path``; all diagnoses, since a
            run may have been trained on them.
        cache: folder that keeps thumbnails between calls.

    Returns:
        ``sides`` that test was compared with; ``lesions`` on both; ``files`` of equal content on both;
        ``near_duplicates``, pairs of pictures on both that `trainer.data.near_duplicates` takes for one photograph,
        the first of them by name; and ``clean``.
    """
    images = images[images["split"].isin((TRAIN, VALIDATION, TEST))]
    held_out = (images["split"] == TEST).to_numpy()
    lesions = set(images.loc[held_out, "lesion_id"]) & set(images.loc[~held_out, "lesion_id"])
    seen = survey([Path(path) for path in images["path"]], cache)
    digests = np.array(seen.sha256)
    files = set(digests[held_out]) & set(digests[~held_out])
    pairs = near_duplicate_pairs(seen.thumbnails)
    across = pairs[held_out[pairs[:, 0]] != held_out[pairs[:, 1]]]
    names = images["image_id"].to_numpy(object)
    return {
        "compared": {"test": int(held_out.sum()), "others": int((~held_out).sum())},
        "sides": [side for side in (TRAIN, VALIDATION) if (images["split"] == side).any()],
        "lesions": len(lesions),
        "files": len(files),
        "near_duplicates": len(across),
        "pairs": [[str(names[first]), str(names[second])] for first, second in across[:_NAMED]],
        "clean": not (lesions or files or len(across)),
    }
