"""Flags beside diagnoses: what reviewers' findings say about a job's sensitivity, and what they cannot say."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from db.feedback import ReviewedImage
from db.status import TriageFlag

#: Fewest melanomas, and others, from which shares are told. Below, an interval covers nearly everything.
FEWEST = 20
#: Difference between the shares of flagged and other cases with a diagnosis from which the bias is named.
_BIASED = 0.1
_MELANOMA = re.compile(r"melanom|\b(mel|mm|ssm|lmm|alm|nmm)\b|lentigo maligna", re.IGNORECASE)
#: Melanoma is denied: "no melanoma", "no evidence of melanoma", "melanoma excluded". Not: "melanoma, no ulceration".
_DENIED = re.compile(
    r"\b(no|not|non|without|kein\w*|ohne)\b[^,;.:]{0,40}(melanom|lentigo maligna)|"
    r"melanom\w*[^,;.:]{0,20}\b(excluded|ruled out|ausgeschlossen|unlikely)\b",
    re.IGNORECASE,
)
_OPEN = re.compile(
    r"\?|\b(suspected|suspicious|suspicion|possible|possibly|probable|cannot be excluded|rule out|vs|versus|v\.? ?a|"
    r"verdacht\w*|dd)\b",
    re.IGNORECASE,
)
_SUSPICION = re.compile(r"malignan|suspicio|suspected|verdacht", re.IGNORECASE)
#: Half of the width of a 95% interval of the normal distribution, in standard deviations.
_Z = 1.959964


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share with its 95% interval (Wilson, "Probable inference", 1927)."""

    hits: int
    of: int

    @property
    def value(self) -> float:
        """The share. Not a number of nothing."""
        return self.hits / self.of if self.of else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Its lower and upper end."""
        if not self.of:
            return 0.0, 1.0
        centre = (self.value + _Z**2 / (2 * self.of)) / (1 + _Z**2 / self.of)
        half = (
            _Z / (1 + _Z**2 / self.of) * math.sqrt(self.value * (1 - self.value) / self.of + _Z**2 / (4 * self.of**2))
        )
        return max(0.0, centre - half), min(1.0, centre + half)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.1%} ({low:.1%} to {high:.1%}), {self.hits:,} of {self.of:,}"


@dataclass(frozen=True, kw_only=True)
class Performance:
    """Cases of jobs with a diagnosis, by flag.

    Args:
        sensitivity: of melanomas, flagged as high risk.
        specificity: of the others, not flagged.
        predictive: of flagged ones, melanomas.
        flagged_verified: of flagged cases, with a diagnosis.
        others_verified: of the other scored cases, with a diagnosis.
        not_scored: melanomas without a score, which went to a human.
        unclear: cases whose diagnosis leaves open whether it is melanoma. They count as not diagnosed.
    """

    sensitivity: Share
    specificity: Share
    predictive: Share
    flagged_verified: Share
    others_verified: Share
    not_scored: int
    unclear: int = 0

    def caveats(self) -> list[str]:
        """What these figures cannot say, one sentence each."""
        caveats = []
        if self.unclear:
            caveats.append(
                f'{self.unclear:,} cases have a diagnosis that leaves melanoma open, such as "melanoma?", and are not '
                "counted. Record the final diagnosis with `dermq feedback`."
            )
        if self.sensitivity.of < FEWEST:
            caveats.append(
                f"Too few melanomas to tell a sensitivity: {self.sensitivity.of}, where {FEWEST} are the least."
            )
        if self.specificity.of < FEWEST:
            caveats.append(f"Too few other diagnoses to tell a specificity: {self.specificity.of}.")
        if self.flagged_verified.value - self.others_verified.value > _BIASED:
            caveats.append(
                f"Verification bias: {self.flagged_verified.value:.0%} of high-risk cases have a diagnosis, and "
                f"{self.others_verified.value:.0%} of the others. Melanomas among the others that nobody has "
                "diagnosed are not counted, so the true sensitivity is lower."
            )
        return caveats


def is_melanoma(diagnosis: str) -> bool | None:
    """Whether a diagnosis, in a reviewer's words, is melanoma. None where the words leave it open."""
    words = diagnosis.strip()
    if _MELANOMA.search(words) is None:
        return None if _OPEN.search(words) and _SUSPICION.search(words) else False
    if _DENIED.search(words):
        return False
    return None if _OPEN.search(words) else True


def measure(images: Iterable[ReviewedImage]) -> Performance:
    """Compare flags with diagnoses, by case: a lesion with its most suspicious image, or an image without one.

    Args:
        images: of one job or of several; lesions of several jobs must not share a name.
    """
    cases: dict[object, list[ReviewedImage]] = {}
    for image in images:
        cases.setdefault(image.lesion_id or image.image_id, []).append(image)
    caught = missed = alarms = passed = flagged = flagged_known = others = others_known = lost = unclear = 0
    for members in cases.values():
        diagnoses = [image.diagnosis for image in members if image.diagnosis]
        scored = [image for image in members if image.flag is not None]
        known = [each for each in map(is_melanoma, diagnoses) if each is not None]
        unclear += bool(diagnoses) and not known
        melanoma = any(known)
        if not scored:
            lost += melanoma
            continue
        high = any(image.flag is TriageFlag.HIGH_RISK for image in scored)
        flagged, others = flagged + high, others + (not high)
        if not known:
            continue
        flagged_known, others_known = flagged_known + high, others_known + (not high)
        caught, missed = caught + (melanoma and high), missed + (melanoma and not high)
        alarms, passed = alarms + (not melanoma and high), passed + (not melanoma and not high)
    return Performance(
        sensitivity=Share(hits=caught, of=caught + missed),
        specificity=Share(hits=passed, of=alarms + passed),
        predictive=Share(hits=caught, of=caught + alarms),
        flagged_verified=Share(hits=flagged_known, of=flagged),
        others_verified=Share(hits=others_known, of=others),
        not_scored=lost,
        unclear=unclear,
    )
