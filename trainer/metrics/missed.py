"""Every melanoma that a policy misses: the list that a dermatologist reads first."""

import pandas as pd

from trainer.metrics.figures import MissedMelanoma, Siblings
from worker.inference.bundle import PolicyThreshold

#: Columns that describe an image, if the data have them.
_KNOWN = ("age", "sex", "localization", "dataset", "dx_type")


def missed_melanomas(images: pd.DataFrame, thresholds: dict[str, PolicyThreshold]) -> tuple[MissedMelanoma, ...]:
    """Melanoma images below the threshold of at least one policy, the lowest probability first.

    Args:
        images: rows with ``image_id``, ``lesion_id``, ``label``, calibrated ``probability``, and perhaps more.
        thresholds: by policy.
    """
    entries = []
    melanomas = images[images["label"] == 1].sort_values("probability", kind="stable")
    for number, row in melanomas.iterrows():
        missed_by = [name for name, policy in thresholds.items() if row["probability"] < policy.threshold]
        if not missed_by:
            continue
        siblings = melanomas[(melanomas["lesion_id"] == row["lesion_id"]) & (melanomas.index != number)]
        entries.append(
            MissedMelanoma(
                image_id=str(row["image_id"]),
                lesion_id=str(row["lesion_id"]),
                probability=float(row["probability"]),
                known={name: str(row[name]) for name in _KNOWN if name in images and pd.notna(row[name])},
                missed_by=tuple(missed_by),
                siblings=Siblings(
                    images=len(siblings),
                    flagged={
                        name: int((siblings["probability"] >= policy.threshold).sum())
                        for name, policy in thresholds.items()
                    },
                ),
            )
        )
    return tuple(entries)
