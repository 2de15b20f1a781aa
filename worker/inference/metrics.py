"""The figures of an evaluation that a bundle carries. Evaluation report, model card and bundle share these types.

Every number must be finite. A figure that could not be computed is ``None``.
"""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _not_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("expected a number, not a boolean")
    return value


Number = Annotated[float, BeforeValidator(_not_boolean), Field(allow_inf_nan=False)]
Share = Annotated[Number, Field(ge=0, le=1)]


class Figures(BaseModel):
    """Base of every group of figures: unchangeable, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Estimate(Figures):
    """A figure with its 95% interval.

    ``low`` and ``high`` are None where resampling cannot tell an interval, as with perfectly separated classes.
    """

    value: Number | None
    low: Number | None = None
    high: Number | None = None

    @property
    def or_nan(self) -> float:
        """The figure. Not a number where there is none."""
        return float("nan") if self.value is None else self.value


class ClassCounts(Figures):
    """How many of each class."""

    melanoma: int = Field(ge=0)
    nevus: int = Field(ge=0)


class Counts(Figures):
    """Images and lesions of each class."""

    images: ClassCounts
    lesions: ClassCounts


class SensitivitySpecificity(Figures):
    """Shares of melanomas and nevi that are flagged correctly. None where there is none of a class."""

    sensitivity: Estimate | None
    specificity: Estimate | None


class PolicyMetrics(Figures):
    """What a triage policy gives, by image."""

    threshold: Number
    sensitivity: Estimate
    specificity: Estimate
    missed_melanoma_images: int = Field(ge=0)


class ReliabilityBin(Figures):
    """Images of similar probability: their number, mean probability and share of melanomas."""

    images: int
    predicted: Number
    observed: Number


class CalibrationMeasures(Figures):
    """How well probabilities are calibrated. Van Calster et al., BMC Medicine 17:230 (2019)."""

    mean_predicted: Number
    observed: Number
    brier: Estimate
    ece: Estimate
    slope: Estimate
    intercept: Estimate
    bins: tuple[ReliabilityBin, ...]


class LesionsCaught(Figures):
    """Melanoma lesions, and those of which every image is flagged."""

    caught: int = Field(ge=0)
    lesions: int = Field(ge=0)


class CrossFitPolicy(Figures):
    """What a policy gives when each image is flagged by a threshold that was chosen on other lesions."""

    thresholds: tuple[Number, ...]
    sensitivity: Estimate
    specificity: Estimate
    missed: int = Field(ge=0)
    by_lesion: LesionsCaught


class CrossFit(Figures):
    """Cross-fitted figures. ``refused`` says for each other policy why it has none."""

    folds: int
    calibration: CalibrationMeasures
    policies: dict[str, CrossFitPolicy]
    refused: dict[str, str]


class CalibrationLine(Figures):
    """Slope and intercept of Platt scaling."""

    slope: Number
    intercept: Number


class FoldRun(Figures):
    """A run that held a fold out."""

    run: str
    fold: str
    seed: int
    weights_sha256: str


class FoldMetrics(FoldRun):
    """What such a run gives on its fold.

    The calibration is fitted on the fold alone. Policies are at thresholds that were chosen on the other folds; none in
    bundles from before they were recorded.
    """

    counts: Counts
    auroc: Number
    calibration: CalibrationLine
    policies: dict[str, SensitivitySpecificity] = Field(default_factory=dict)


class FoldsCrossFit(Figures):
    """What a recipe gives on the lesions outside test, each predicted by a run that was not trained on it."""

    folds: tuple[FoldMetrics, ...]
    mean_auroc: Number
    counts: Counts
    auroc: Estimate
    calibration: CalibrationMeasures
    policies: dict[str, CrossFitPolicy]
    refused: dict[str, str]


class SourceMetrics(Counts):
    """What a model gives on the test images of one source, at the policies' thresholds.

    ``auroc`` and the shares are None where a class is missing.
    """

    auroc: Estimate | None
    policies: dict[str, SensitivitySpecificity]


class BundleMetrics(Counts):
    """The figures of ``metrics.json`` and of a bundle: those of the first data set's test split, and by source.

    Args:
        split: which images they were measured on.
        intervals: how the intervals were made.
        crossfit: of a run that was trained on everything outside test.
        lesion_ids_missing: images without a lesion id; of a recalibrated bundle only.
        sources: of a model that was trained on several data sets, by source.
    """

    split: str
    auroc: Estimate
    policies: dict[str, PolicyMetrics]
    auprc: Estimate | None = None
    brier: Estimate | None = None
    intervals: str = ""
    mean_probability: Number | None = None
    crossfit: FoldsCrossFit | None = None
    lesion_ids_missing: int | None = None
    sources: dict[str, SourceMetrics] = Field(default_factory=dict)
