"""The cases of a worklist: the images of a lesion together, ranked by the most suspicious one."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from db.outcomes import quality_notes_of_text
from db.status import ImageStatus, QualityNote, TriageFlag, UngradableReason
from db.worklist import OutcomeRow

#: What a code means to a doctor. A failure's own sentence says the rest.
UNGRADABLE_IN_WORDS = {
    UngradableReason.TOO_SMALL: "The picture is too small to be scored.",
    UngradableReason.NO_CONTRAST: "The picture is nearly of one tone.",
    UngradableReason.BLURRED: "The picture is blurred.",
    UngradableReason.TOO_DARK: "The picture is too dark.",
    UngradableReason.TOO_BRIGHT: "The picture is too bright.",
    UngradableReason.GLARE: "The picture is mostly white: reflections, or no skin at all.",
    UngradableReason.DARK_FRAME: "The picture is mostly the dark frame around the lens.",
    UngradableReason.OUT_OF_DISTRIBUTION: "The picture is unlike the dermoscopic images that the model was trained on.",
}
#: What is unusual about a scored picture, to a doctor.
NOTES_IN_WORDS = {
    QualityNote.LOW_CONTRAST: "little contrast",
    QualityNote.BLURRED: "blurred",
    QualityNote.DARK: "dark",
    QualityNote.BRIGHT: "very bright",
    QualityNote.GLARE: "white reflections",
    QualityNote.DARK_FRAME: "a wide dark frame",
    QualityNote.HAIR: "much hair, or other dark lines",
    QualityNote.UNUSUAL: "unlike most images that the model was trained on",
}
#: HAM10000's names of the diagnoses, to a doctor.
_DIAGNOSES = {
    "akiec": "actinic keratosis or Bowen's disease",
    "bcc": "basal cell carcinoma",
    "bkl": "benign keratosis",
    "df": "dermatofibroma",
    "mel": "melanoma",
    "nv": "nevus",
    "vasc": "vascular lesion",
}
#: Bins of the histogram of probabilities, of equal width from 0 to 1.
BINS = 20


@dataclass(kw_only=True)
class Case:
    """A lesion, or an image whose lesion is not known.

    Args:
        rank: from 1.
        lesion: its identifier. None where it is not known.
        images: scored ones, the most suspicious first.
        not_scored: images of the same lesion without a score.
    """

    rank: int
    lesion: str | None
    images: list[OutcomeRow] = field(default_factory=list)
    not_scored: list[OutcomeRow] = field(default_factory=list)

    @property
    def first(self) -> OutcomeRow:
        """The most suspicious image, by which the case is ranked."""
        return self.images[0]

    @property
    def probability(self) -> float:
        """Of the most suspicious image."""
        return self.first.probability or 0.0

    @property
    def malignant(self) -> float | None:
        """The greatest probability of any malignant diagnosis. None of a bundle that does not tell diagnoses."""
        return max(
            (row.malignant_probability for row in self.images if row.malignant_probability is not None), default=None
        )

    @property
    def flag(self) -> TriageFlag:
        """Of the most suspicious image."""
        return self.first.flag or TriageFlag.UNGRADABLE


@dataclass(kw_only=True)
class Worklist:
    """The cases of a job, and what stays outside of them.

    Args:
        cases: ranked, at most as many as were asked for.
        all_cases: number of cases with a score.
        not_scored: images that are ungradable, failed, or wait in a job that was cancelled: a human must look. Those
            of a lesion with a score are in its case, too.
        all_not_scored: number of these images.
        ranks: of the case of an image without a score, by its id, where it has one.
        waiting: images without an outcome yet.
        flags: cases by triage flag.
        histogram: scored images by calibrated probability, in `BINS` bins.
    """

    cases: list[Case]
    all_cases: int
    not_scored: list[OutcomeRow]
    all_not_scored: int
    waiting: int
    flags: dict[TriageFlag, int]
    histogram: list[int]
    ranks: dict[int, int] = field(default_factory=dict)


def make_worklist(rows: Iterable[OutcomeRow], *, most: int, cancelled: bool) -> Worklist:
    """Group a job's outcomes to cases.

    Args:
        rows: from `db.worklist.outcomes_ranked`: those without a score, then the others, the highest probability first.
        most: cases, and images without a score, that are kept. The others are counted.
        cancelled: whether the job was cancelled, so that waiting images are without a score for good.
    """
    by_lesion: dict[str, Case] = {}
    pending: list[OutcomeRow] = []
    worklist = Worklist(
        cases=[],
        all_cases=0,
        not_scored=[],
        all_not_scored=0,
        waiting=0,
        flags=dict.fromkeys(TriageFlag, 0),
        histogram=[0] * BINS,
    )
    for row in rows:
        if row.status is ImageStatus.WAITING and not cancelled:
            worklist.waiting += 1
        elif row.status is not ImageStatus.SCORED:
            pending.append(row)
        else:
            probability = row.probability or 0.0
            worklist.histogram[min(int(probability * BINS), BINS - 1)] += 1
            found = by_lesion.get(row.lesion_id) if row.lesion_id else None
            if found is not None:
                found.images.append(row)
                continue
            worklist.all_cases += 1
            case = Case(rank=worklist.all_cases, lesion=row.lesion_id, images=[row])
            worklist.flags[case.flag] += 1
            if row.lesion_id:
                by_lesion[row.lesion_id] = case
            if len(worklist.cases) < most:
                worklist.cases.append(case)
    for row in pending:
        case_of_row = by_lesion.get(row.lesion_id) if row.lesion_id else None
        if case_of_row is not None:
            case_of_row.not_scored.append(row)
            worklist.ranks[row.image_id] = case_of_row.rank
        worklist.all_not_scored += 1
        if len(worklist.not_scored) < most:
            worklist.not_scored.append(row)
    return worklist


def why_not_scored(row: OutcomeRow) -> str:
    """Why an image has no score, in a doctor's words."""
    if row.ungradable_reason is not None:
        return UNGRADABLE_IN_WORDS[row.ungradable_reason]
    if row.status is ImageStatus.WAITING:
        return "The job was cancelled before this image was scored."
    sentence = (row.reason or "It could not be read.").strip()
    return sentence[:1].upper() + sentence[1:] + ("" if sentence.endswith(".") else ".")


def digits(probability: float, *limits: float) -> str:
    """A probability in two digits, in three where two would put it on a limit.

    Args:
        probability: 0 to 1.
        limits: thresholds of the job.
    """
    shown = f"{probability:.2f}"
    return f"{probability:.3f}" if shown in [f"{limit:.2f}" for limit in limits] else shown


def borderline_quality(row: OutcomeRow) -> str:
    """What is unusual about a scored picture, in a doctor's words. Empty where nothing is."""
    return ", ".join(NOTES_IN_WORDS[note] for note in quality_notes_of_text(row.quality_notes))


def diagnoses(row: OutcomeRow) -> str:
    """The probabilities of a bundle that tells more than two diagnoses, the likeliest first. Empty for others."""
    if row.class_probabilities is None:
        return ""
    ranked = sorted(row.class_probabilities.items(), key=lambda item: -item[1])
    parts = ", ".join(f"{_DIAGNOSES.get(name, name)} {probability:.2f}" for name, probability in ranked)
    return f"Any malignant diagnosis {row.malignant_probability or 0:.2f}. {parts[:1].upper()}{parts[1:]}."
