"""The diagnoses, by HAM10000's names, and the two-class task."""

import pandas as pd

#: All diagnoses, in the order of the model's outputs.
DIAGNOSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
#: Those that are malignant: actinic keratoses and intraepithelial carcinoma, basal cell carcinoma, melanoma.
MALIGNANT = ("akiec", "bcc", "mel")
#: The diagnoses of the two-class task: 1 is melanoma, 0 is nevus.
LABELS = {"mel": 1, "nv": 0}

#: Ages above are taken for a mistake and count as unknown. In years.
MAX_AGE = 130


def melanoma_or_nevus(frame: pd.DataFrame) -> pd.DataFrame:
    """Keep the images of the two-class task and label them: ``label`` is 1 for ``mel`` and 0 for ``nv``."""
    kept = frame[frame["dx"].isin(LABELS)].reset_index(drop=True)
    return kept.assign(label=kept["dx"].map(LABELS).astype(int))
