"""The worklist as one page that opens offline: pictures, ranks, and room for what a reader finds."""

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TextIO

import jinja2

from db.jobs import JobView
from db.status import ImageStatus, TriageFlag
from worker.images.fit import Fit
from worker.inference.bundle import Bundle
from worker.output.worklist_cases import BINS, Worklist, borderline_quality, diagnoses, digits, why_not_scored

_TEMPLATES = Path(__file__).parent / "templates"
#: Shares of melanomas among the lesions of a clinic that a reader may choose: screening to referral.
PREVALENCES = (0.01, 0.02, 0.05, 0.14)
#: Diagnoses that a reader may record, in words that `dermq audit-performance` tells apart.
_REVIEWED_DIAGNOSES = (
    "melanoma",
    "nevus",
    "basal cell carcinoma",
    "squamous cell carcinoma",
    "actinic keratosis or Bowen's disease",
    "benign keratosis",
    "dermatofibroma",
    "vascular lesion",
    "other",
)
#: Lists of the images without a score.
_UNSCORED = {
    ImageStatus.UNGRADABLE: "The picture is not fit to be scored",
    ImageStatus.FAILED: "The file could not be processed",
    ImageStatus.WAITING: "The job was cancelled before",
}
#: What each flag asks for, and no word of relief.
_MEANINGS = {
    TriageFlag.HIGH_RISK: "look first",
    TriageFlag.BORDERLINE: "just below the threshold",
    TriageFlag.LOWER_PRIORITY: "look later; it does not mean benign",
}


@dataclass(frozen=True, kw_only=True)
class PolicyFigures:
    """What a policy does on the bundle's test images: shares with the ends of their 95% intervals."""

    sensitivity: tuple[float, float, float]
    specificity: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class PageOptions:
    """How the page is made.

    Args:
        thumbnail: gives the address of an image's thumbnail by its id, or None where the picture cannot be read now.
        references: patient reference by image id. None leaves them out.
        evidence: evidence maps by image id, from `db.worklist.evidence_of`.
        fit: how the model's input was made of a picture, so that a map lies where it belongs.
        made_at: UTC.
        state: of the job, in one word.
    """

    thumbnail: Callable[[int], str | None]
    references: Mapping[int, str] | None
    evidence: Mapping[int, bytes]
    fit: Fit
    made_at: datetime
    state: str


def policy_figures(bundle: Bundle, policy: str, threshold: float) -> PolicyFigures | None:
    """Figures of a policy on the bundle's test images. None where it has none for this threshold."""
    found = bundle.manifest.metrics.policies.get(policy)
    if found is None or found.threshold != threshold:
        return None
    shares = []
    for estimate in (found.sensitivity, found.specificity):
        if estimate.value is None or estimate.low is None or estimate.high is None:
            return None
        shares.append((estimate.value, estimate.low, estimate.high))
    return PolicyFigures(sensitivity=shares[0], specificity=shares[1])


def write_worklist_page(
    worklist: Worklist, job: JobView, figures: PolicyFigures | None, options: PageOptions, file: TextIO
) -> None:
    """Write the page, case by case.

    Args:
        worklist: from `make_worklist`.
        job: what the page is of.
        figures: of the job's policy. None where the bundle has none.
        options: how.
        file: opened for text in UTF-8.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (_TEMPLATES / "worklist.css").read_text(encoding="utf-8")
    script = (_TEMPLATES / "worklist.js").read_text(encoding="utf-8")
    highest = max(worklist.histogram) or 1
    page = environment.get_template("worklist.html.j2").stream(
        worklist=worklist,
        job=job,
        figures=figures,
        options=options,
        unscored=[
            (title, rows)
            for status, title in _UNSCORED.items()
            if (rows := [row for row in worklist.not_scored if row.status is status])
        ],
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
        prevalences=PREVALENCES,
        meanings=_MEANINGS,
        reviewed_diagnoses=_REVIEWED_DIAGNOSES,
        several=any(row.class_probabilities for case in worklist.cases for row in case.images),
        why=why_not_scored,
        quality=borderline_quality,
        digits=lambda probability: digits(probability, job.threshold, job.borderline_threshold),
        diagnoses=diagnoses,
        maps={image_id: base64.b64encode(data).decode() for image_id, data in options.evidence.items()},
        bars=[(number / BINS, count, count / highest) for number, count in enumerate(worklist.histogram)],
        key=f"dermq-worklist-{job.id}-{job.bundle_sha256[:12]}-{int(job.submitted_at.timestamp())}",
    )
    page.enable_buffering(64)
    for piece in page:
        file.write(piece)


def _hash(text: str) -> str:
    """Of an element's text, by which the page's policy allows it (Content Security Policy, level 3)."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
