"""Ages as people, spreadsheets and DICOM write them."""

import re

#: 85+ is the greatest that an anonymised file tells; 047Y and 006M are DICOM's (PS3.5, section 6.2).
_AGE = re.compile(r"(\d{1,3}(?:[.,]\d+)?)\s*(?:\+|(y|m|w|d)[a-z]*\.?)?", re.IGNORECASE)
_PARTS_OF_A_YEAR = {"y": 1.0, "m": 12.0, "w": 52.18, "d": 365.25}
#: Ages in years outside this range are not understood.
_AGES = (0.0, 130.0)


def years_of(text: str) -> float | None:
    """Age in years. None for what is no age from 0 to 130 years."""
    found = _AGE.fullmatch(text.strip())
    if found is None:
        return None
    age = float(found[1].replace(",", ".")) / _PARTS_OF_A_YEAR[(found[2] or "y").lower()]
    return age if _AGES[0] <= age <= _AGES[1] else None
