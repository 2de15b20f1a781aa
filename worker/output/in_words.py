"""The words for flags and results in the records of a hospital. DICOM and FHIR have the same."""

import hashlib

from db.status import ImageStatus, TriageFlag
from db.worklist import OutcomeRow

#: What every record says.
NOT_REVIEWED = "Not reviewed by a person. Research only, not a medical device. A low score does not mean benign."
PROBABILITY = "Calibrated probability of melanoma against nevus"
THRESHOLD = "Threshold of the triage policy"
TRIAGE_FLAG = "Triage flag"
#: No value reassures.
FLAGS = {
    TriageFlag.HIGH_RISK: "High risk: look first",
    TriageFlag.BORDERLINE: "Borderline: just below the threshold",
    TriageFlag.LOWER_PRIORITY: "Lower priority: look later, does not mean benign",
    TriageFlag.UNGRADABLE: "Not scored: a human must look",
}


def flag_of(row: OutcomeRow) -> TriageFlag:
    """The flag of an image; of one without a score ``ungradable``."""
    return row.flag if row.status is ImageStatus.SCORED and row.flag is not None else TriageFlag.UNGRADABLE


def digits(number: float) -> float:
    """A probability or a threshold in six digits, so that a number on the threshold's other side stays there."""
    return round(number, 6)


def identity(*parts: object) -> str:
    """A number that is the same whenever the same is written again, for identifiers: 32 hexadecimal digits."""
    return hashlib.sha256("\0".join(map(str, parts)).encode("utf-8", "surrogatepass")).hexdigest()[:32]
