"""Every melanoma that a policy misses, by name: the list that a dermatologist reads first."""

from typing import Any

import pandas as pd

from worker.inference.bundle import PolicyThreshold

#: Columns that describe an image, where the data have them.
_KNOWN = ("age", "sex", "localization", "dataset", "dx_type")


def missed_melanomas(images: pd.DataFrame, thresholds: dict[str, PolicyThreshold]) -> list[dict[str, Any]]:
    """Melanoma images below at least one policy's threshold, the lowest probability first.

    Args:
        images: rows with ``image_id``, ``lesion_id``, ``label``, calibrated ``probability``, and perhaps more.
        thresholds: by policy.

    Returns:
        For each image its names, its probability, what is known of it, ``missed_by`` (policies) and ``siblings``: of
        the other images of its lesion how many there are, and how many each policy flags.
    """
    entries = []
    melanomas = images[images["label"] == 1].sort_values("probability", kind="stable")
    for number, row in melanomas.iterrows():
        missed_by = [name for name, policy in thresholds.items() if row["probability"] < policy.threshold]
        if not missed_by:
            continue
        siblings = melanomas[(melanomas["lesion_id"] == row["lesion_id"]) & (melanomas.index != number)]
        entries.append(
            {
                "image_id": str(row["image_id"]),
                "lesion_id": str(row["lesion_id"]),
                "probability": float(row["probability"]),
                "known": {name: str(row[name]) for name in _KNOWN if name in images and pd.notna(row[name])},
                "missed_by": missed_by,
                "siblings": {
                    "images": len(siblings),
                    "flagged": {
                        name: int((siblings["probability"] >= policy.threshold).sum())
                        for name, policy in thresholds.items()
                    },
                },
            }
        )
    return entries
