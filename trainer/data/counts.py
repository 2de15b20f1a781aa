"""Counting the images and lesions of each class."""

import pandas as pd

from worker.inference.metrics import ClassCounts, Counts


def count_classes(images: pd.DataFrame) -> Counts:
    """Images and lesions of each class.

    Args:
        images: rows with ``label`` (1 melanoma, 0 nevus) and ``lesion_id``.
    """
    melanomas, nevi = images[images["label"] == 1], images[images["label"] == 0]
    return Counts(
        images=ClassCounts(melanoma=len(melanomas), nevus=len(nevi)),
        lesions=ClassCounts(melanoma=melanomas["lesion_id"].nunique(), nevus=nevi["lesion_id"].nunique()),
    )
