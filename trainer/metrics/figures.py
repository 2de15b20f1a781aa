"""The figures of an evaluation, as types. `trainer.report.schema` puts them together to ``report.json``.

Where a figure could not be computed it is None. The types that a bundle carries too are in `worker.inference.metrics`.
"""

from pydantic import Field

from worker.inference.metrics import (
    CalibrationMeasures,
    ClassCounts,
    Counts,
    CrossFit,
    Estimate,
    Figures,
    Number,
    SensitivitySpecificity,
)


class OperatingFigures(Figures):
    """What a policy gives at one level, by image or by lesion.

    ``sensitivity_every_image`` is the share of melanoma lesions with every image flagged; by lesion only.
    """

    threshold: Number
    sensitivity: Estimate
    specificity: Estimate
    missed: int
    flagged: int
    sensitivity_every_image: Estimate | None = None


class LevelFigures(Figures):
    """Discrimination at one level, by image or by lesion."""

    auroc: Estimate
    auprc: Estimate
    specificity_at_95_sensitivity: Estimate
    policies: dict[str, OperatingFigures]


class RocCurve(Figures):
    """The ROC curve, from 0 to 1."""

    false_positive_rate: tuple[Number, ...]
    sensitivity: tuple[Number, ...]


class PrecisionRecallCurve(Figures):
    """The precision-recall curve."""

    recall: tuple[Number, ...]
    precision: tuple[Number, ...]


class Curves(Figures):
    """Both curves, by image."""

    roc: RocCurve
    pr: PrecisionRecallCurve


class CalibrationFigures(Figures):
    """Calibration of the network's output and of the calibrated probability."""

    before: CalibrationMeasures
    after: CalibrationMeasures


class PredictiveValues(Figures):
    """Predictive values and the share of flagged images at a prevalence."""

    prevalence: Number
    ppv: Estimate
    npv: Estimate
    referred: Estimate


class NetBenefit(Figures):
    """Net benefit at a threshold probability. ``gain`` is the model's, less the better of everyone and no one."""

    threshold: Number
    model: Estimate
    gain: Estimate
    refer_all: Number
    refer_none: Number


class CoveragePoint(Figures):
    """What holds among the most certain images, the others being left to a human."""

    coverage: Number
    images: int
    risk: Number
    sensitivity: Number | None
    specificity: Number | None
    missed: int


class GroupFigures(Figures):
    """Figures of one group of images. ``few`` names the classes with too few lesions for a meaningful figure."""

    images: ClassCounts
    lesions: ClassCounts
    few: tuple[str, ...]
    auroc: Estimate | None
    policies: dict[str, SensitivitySpecificity]


class Subgroup(GroupFigures):
    """Figures of a named group."""

    group: str


class Subgroups(Figures):
    """The groups of one variable, such as the age."""

    variable: str
    groups: tuple[Subgroup, ...]


class Assessment(Figures):
    """All figures of one set of scored images at given thresholds."""

    counts: Counts
    images: LevelFigures
    lesions: LevelFigures
    curves: Curves
    calibration: CalibrationFigures
    prevalence: dict[str, tuple[PredictiveValues, ...]]
    decision_curve: tuple[NetBenefit, ...]
    subgroups: tuple[Subgroups, ...]
    histology_only: GroupFigures | None
    coverage: dict[str, tuple[CoveragePoint, ...]]


class Siblings(Figures):
    """The other images of a lesion, and how many of them each policy flags."""

    images: int
    flagged: dict[str, int]


class MissedMelanoma(Figures):
    """A melanoma image below the threshold of at least one policy."""

    image_id: str
    lesion_id: str
    probability: Number
    known: dict[str, str]
    missed_by: tuple[str, ...]
    siblings: Siblings


class DiagnosisFigures(Figures):
    """One diagnosis against all others."""

    diagnosis: str
    images: int
    lesions: int
    sensitivity: Estimate
    auroc: Estimate


class SevenClasses(Figures):
    """How well a model of seven classes tells the diagnoses apart. Rows of ``confusion`` are the true diagnoses."""

    balanced_accuracy: Estimate
    diagnoses: tuple[DiagnosisFigures, ...]
    confusion: tuple[tuple[int, ...], ...]


class OtherDiagnosis(Figures):
    """Images of a diagnosis that the two-class task leaves out. ``policies`` counts the flagged ones."""

    diagnosis: str
    images: int
    lesions: int
    quartiles: tuple[Number, Number, Number]
    policies: dict[str, int]


class UnchangedFlags(Figures):
    """Sensitivity and specificity of the unchanged images."""

    sensitivity: Estimate
    specificity: Estimate


class ChangedFlags(UnchangedFlags):
    """Sensitivity and specificity under a change of the images, and whose flag changed."""

    changed: Number
    melanomas_lost: int
    melanomas_gained: int
    nevi_flagged: int
    nevi_unflagged: int


class Change(Figures):
    """One change of the images at one strength."""

    name: str
    strength: Number
    unit: str
    policies: dict[str, ChangedFlags]
    auroc: Estimate
    auroc_difference: Estimate


class Robustness(Figures):
    """What changes of the images do to the flags. ``subgroups`` is filled for validation images only."""

    images: ClassCounts
    auroc: Estimate
    policies: dict[str, UnchangedFlags]
    changes: tuple[Change, ...]
    subgroups: tuple[Subgroups, ...] = ()


class MapCurves(Figures):
    """Mean probability at each share of the picture that was changed, by heat maps and by maps of chance.

    ``area_difference`` is the area under the first curve minus that under the second.
    """

    by_map: tuple[Number, ...]
    by_chance: tuple[Number, ...]
    area_difference: Estimate


class HeatMaps(Figures):
    """Deletion and insertion on flagged melanomas, of which ``empty`` have no positive evidence anywhere."""

    images: int
    empty: int
    shares: tuple[Number, ...]
    deletion: MapCurves
    insertion: MapCurves


class FlagAgreement(Figures):
    """Share of images with the same high-risk flag, and the number of others."""

    agreement: Number
    differ: int


class EngineParity(Figures):
    """How far two engines are apart on the same images."""

    engine: str
    images: int
    largest: Number
    mean: Number
    auroc_difference: Number
    policies: dict[str, FlagAgreement]


class Compared(Figures):
    """Numbers of images that a leakage check compared."""

    test: int
    others: int


class Leakage(Figures):
    """What test shares with the sides that a run was trained and validated on."""

    compared: Compared
    sides: tuple[str, ...]
    lesions: int
    files: int
    near_duplicates: int
    pairs: tuple[tuple[str, str], ...]
    clean: bool


class SeedRun(Figures):
    """Figures of one of several runs that differ in their seed."""

    run: str
    seed: int | None
    figures: dict[str, Number]


class FigureRange(Figures):
    """Mean, least and greatest value of a figure over runs."""

    mean: Number
    least: Number
    greatest: Number


class Seeds(Figures):
    """The range of each figure over runs that differ in their seed.

    ``same_start`` says whether all continue from the same weights, so that the range is of the last step alone.
    """

    runs: tuple[SeedRun, ...] = ()
    figures: dict[str, FigureRange] = Field(default_factory=dict)
    same_start: bool = True


class LeftOutSource(Figures):
    """Figures of a run on the test images of a source that it never saw."""

    run: str
    source: str
    figures: GroupFigures | None


class SourceFigures(GroupFigures):
    """Figures on the test images of one source, and what of it the run was trained on.

    Args:
        source: the clinics, as the data set names them.
        collection: the data set.
        licence: of the images.
        geometry: what was done to their frames; empty for nothing known.
        trained: images in training.
    """

    source: str
    collection: str
    licence: str
    geometry: str
    trained: ClassCounts


class Size(Figures):
    """Numbers of lesions and images."""

    lesions: int
    images: int


class SideSizes(Figures):
    """Sizes of one side of a split."""

    all: Size
    mel: Size
    nv: Size


class Flow(Figures):
    """From the data set to the sides of the split."""

    all: Size
    other_diagnoses: Size
    two_classes: Size
    left_out_by_limit: int
    splits: dict[str, SideSizes]
    training: dict[str, Size]


class ExternalImages(Counts):
    """Images of another clinic that were given for an evaluation."""

    name: str
    other_diagnoses: int
    lesion_ids_missing: int
    without_label: int
    ages_set_aside: tuple[str, ...]


class Refusal(Figures):
    """Why cross-fitted figures could not be made."""

    refused: dict[str, str]


Recalibrated = CrossFit | Refusal
