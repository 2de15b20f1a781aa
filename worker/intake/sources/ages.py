"""Ages as people, spreadsheets and DICOM write them."""

import re

#: 85+ is the greatest that an anonymised file tells. A single letter is a unit only as DICOM writes it, with three
#: digits: 45 m may be a man.
_AGE = re.compile(r"(\d{1,3}(?:[.,]\d+)?)\s*(?:\+|(y|yrs?|years?|months?|weeks?|days?)\.?(?:\s*old)?)?", re.IGNORECASE)
_DICOM_AGE = re.compile(r"(\d{3})([YMWD])")
_PARTS_OF_A_YEAR = {"y": 1.0, "m": 12.0, "w": 52.18, "d": 365.25}
#: Ages in years outside this range are not understood.
_AGES = (0.0, 130.0)


def years_of(text: str) -> float | None:
    """Age in years. None for what is no age from 0 to 130 years."""
    found = _DICOM_AGE.fullmatch(text.strip()) or _AGE.fullmatch(text.strip())
    if found is None:
        return None
    age = float(found[1].replace(",", ".")) / _PARTS_OF_A_YEAR[(found[2] or "y")[0].lower()]
    return age if _AGES[0] <= age <= _AGES[1] else None
