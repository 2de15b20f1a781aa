"""``report.json``: everything that an evaluation found. Report page, model card and bundle are made from it."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from trainer.errors import InputError, MissingError
from trainer.metrics.figures import (
    Assessment,
    EngineParity,
    ExternalImages,
    Flow,
    HeatMaps,
    Leakage,
    LeftOutSource,
    MissedMelanoma,
    OtherDiagnosis,
    Recalibrated,
    Robustness,
    Seeds,
    SevenClasses,
    SourceFigures,
)
from trainer.run_records import RunOrigin
from worker.inference.bundle import Calibration, PolicyThreshold
from worker.inference.metrics import Figures, FoldRun, FoldsCrossFit


class Subject(Figures):
    """The run or bundle that was evaluated.

    Args:
        name: of the run's folder, or name and version of the bundle.
        backbone: of its network.
        size: side of the model's input in pixels.
        classes: number of classes that it was trained on.
        split_sha256: SHA-256 of the split manifest.
        split_kind: ``lesion-disjoint`` or ``random-images``.
        calibration: of its outputs.
        test_accesses: time and command of every evaluation on the test split.
        folds: the runs that its thresholds were cross-fitted with.
        origin: of a run: its settings and those of the runs that it continues from. None for a bundle.
        bundle_sha256: of a bundle. None for a run.
        recalibrated: whether the bundle was recalibrated.
    """

    name: str
    backbone: str
    size: int
    classes: Literal["two", "seven"]
    split_sha256: str
    split_kind: str
    calibration: Calibration
    test_accesses: tuple[str, ...] = ()
    folds: tuple[FoldRun, ...] = ()
    origin: RunOrigin | None = None
    bundle_sha256: str | None = None
    recalibrated: bool = False

    @property
    def is_bundle(self) -> bool:
        """Whether a bundle was evaluated, not a run."""
        return self.bundle_sha256 is not None


class Report(Figures):
    """``report.json``. Fields that only one kind of report has are None in the other kind."""

    #: Version of the layout. Raise it when a figure is renamed or removed, or added without a default.
    format: Literal[4] = 4
    kind: Literal["test", "external"]
    created: str
    seconds: int
    subject: Subject
    remarks: tuple[str, ...] = ()
    policies: dict[str, PolicyThreshold] = Field(min_length=1)
    refused_policies: dict[str, str]
    assessment: Assessment
    missed: tuple[MissedMelanoma, ...]
    other_diagnoses: tuple[OtherDiagnosis, ...] | None
    seven_classes: SevenClasses | None
    engine_parity: EngineParity
    robustness: Robustness | None
    #: None where no melanoma is flagged, with --skip-robustness, of a bundle without a head, and in older reports.
    heat_maps: HeatMaps | None = None
    #: Of a report on the test split.
    flow: Flow | None = None
    leakage: Leakage | None = None
    crossfit: FoldsCrossFit | None = None
    seeds: Seeds = Seeds()
    sources_left_out: tuple[LeftOutSource, ...] = ()
    #: Of a run that was trained on several data sets; the other figures are of the first one's test split.
    sources: tuple[SourceFigures, ...] = ()
    #: Of a report on images of another clinic.
    external: ExternalImages | None = None
    recalibrated: Recalibrated | None = None

    @property
    def first_policy(self) -> str:
        """The policy that a report examines most closely."""
        return next(iter(self.policies))


def read_report(run: Path) -> Report:
    """Read the report of a run's evaluation.

    Args:
        run: a run folder after ``dermq-train evaluate``.

    Raises:
        MissingError: the run was not evaluated.
        InputError: another version wrote the report, or it was changed.
    """
    file = run / "report.json"
    if not file.is_file():
        raise MissingError(f"The run {run} has no {file.name}. Run `dermq-train evaluate {run}` first.")
    try:
        return Report.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first: Any = error.errors()[0]
        raise InputError(
            f"{file} cannot be used ({'.'.join(map(str, first['loc']))}: {first['msg']}): another version wrote it, or "
            f"it was changed. `dermq-train evaluate {run}` writes it again, which accesses the test split once more."
        ) from None
