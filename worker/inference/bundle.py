"""The bundle: a trained model with everything needed to use it, and a SHA-256 of every file.

Loads no image code, so that submitting a job needs none.
"""

import hashlib
import json
import math
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import from_json

from worker.errors import BundleError
from worker.images.fit import Fit
from worker.inference.bundle_reference import MANIFEST_NAME
from worker.inference.metrics import BundleMetrics, ClassCounts, Estimate, Number, Share
from worker.inference.precision import Precision
from worker.regular_files import open_regular, read_regular
from worker.terminal import printable

if TYPE_CHECKING:
    from worker.images.preprocess import Preprocessing

#: Version of the layout of ``bundle.json``.
FORMAT = 2
#: The files that an engine loads. A bundle without their hashes is refused.
MODEL_FILES = ("model.xml", "model.bin", "model.keras")
#: What a model gives for every image; one of more than two classes gives ``class_probabilities`` too.
_OUTPUTS = ("probability", "features", "feature_map")
_SHA256 = re.compile("[0-9a-f]{64}")
#: Hexadecimal digits of a SHA-256 that identify a training image: enough that no two images share them.
TRAINING_IMAGE_DIGITS = 16
#: Probabilities are kept this far from 0 and 1 before the logarithm of their odds is taken.
_ODDS_MARGIN = 1e-7
#: Keys of format 1, and their names since format 2.
_RENAMED_KEYS = {"borderline_from": "borderline_threshold", "made_from": "training_images"}

Probability = Annotated[Number, Field(gt=0, lt=1)]


class _Part(BaseModel):
    # Not a number or infinite: a calibration with such a value would make every image a lower priority.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class InputSpec(_Part):
    """The model's input: 8-bit RGB, (n, size, size, 3). The graph scales the values."""

    size: int = Field(gt=0)
    fit: Fit
    #: Whether a JPEG is decoded at a part of its size where that is enough. Bundles from before decode at full size.
    reduced_decoding: bool = False
    colour_order: Literal["RGB"]
    scale: Literal["in the graph, from 0 to 255"]


class LesionSensitivity(_Part):
    """Sensitivity of a policy by lesion, on the melanoma lesions that its threshold was chosen on.

    Args:
        lesions: number of melanoma lesions.
        caught: lesions of which every image is at or above the threshold.
        lower_bound: one-sided 95% Clopper-Pearson bound of the share of caught lesions.
    """

    lesions: int = Field(ge=1)
    caught: int = Field(ge=0)
    lower_bound: Share

    @model_validator(mode="after")
    def _no_more_than_there_are(self) -> "LesionSensitivity":
        if self.caught > self.lesions:
            raise ValueError(f"caught {self.caught} of {self.lesions} lesions")
        return self


class PolicyThreshold(_Part):
    """The thresholds of one triage policy, on calibrated probabilities. Sensitivity and specificity are by image."""

    threshold: Probability
    borderline_threshold: Probability
    sensitivity: Share
    specificity: Share
    #: None in bundles from before it was recorded.
    by_lesion: LesionSensitivity | None = None

    @model_validator(mode="after")
    def _band_below(self) -> "PolicyThreshold":
        if self.borderline_threshold > self.threshold:
            raise ValueError(
                f"borderline_threshold {self.borderline_threshold} is above the threshold {self.threshold}"
            )
        return self


class Calibration(_Part):
    """Platt scaling: sigmoid(slope * logit(p) + intercept). Platt, "Probabilistic outputs for SVMs", 1999."""

    method: Literal["platt"]
    slope: Annotated[Number, Field(gt=0)]
    intercept: Number

    def apply(self, raw: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Calibrate probabilities. Their order stays.

        Args:
            raw: the network's outputs, any shape, 0 to 1.

        Returns:
            Calibrated probabilities of the same shape.
        """
        clipped = np.clip(raw, _ODDS_MARGIN, 1 - _ODDS_MARGIN)
        odds = self.slope * np.log(clipped / (1 - clipped)) + self.intercept
        # The sigmoid, written so that no odds overflow.
        calibrated: npt.NDArray[np.float64] = np.exp(-np.logaddexp(0, -odds))
        return calibrated


class QualityLimits(_Part):
    """An image outside any of these limits is ungradable. None: the bundle is from before this limit."""

    short_side: int = Field(ge=1)
    contrast: Annotated[Number, Field(ge=0)]
    sharpness: Annotated[Number, Field(ge=0)]
    darkest: Annotated[Number, Field(ge=0)] | None = None
    brightest: Annotated[Number, Field(gt=0)] | None = None
    glare: Share | None = None
    frame: Share | None = None


class QualityNotes(_Part):
    """An image outside any of these limits is scored, and noted as unusual."""

    contrast: Annotated[Number, Field(ge=0)]
    sharpness: Annotated[Number, Field(ge=0)]
    darkest: Annotated[Number, Field(ge=0)]
    brightest: Annotated[Number, Field(gt=0)]
    glare: Share
    frame: Share
    hair: Share


class ImageQuality(_Part):
    """Quality of the training images: quantiles (0 to 1, as text) of each measure of the quality gate."""

    contrast: dict[str, Number]
    sharpness: dict[str, Number]
    #: Empty in bundles from before these measures.
    brightness: dict[str, Number] = Field(default_factory=dict)
    glare: dict[str, Number] = Field(default_factory=dict)
    frame: dict[str, Number] = Field(default_factory=dict)
    hair: dict[str, Number] = Field(default_factory=dict)


class OutOfDistribution(_Part):
    """The out-of-distribution (OOD) gate.

    Args:
        kind: ``distance`` from the training images, by a `worker.images.out_of_distribution.ImageStatistics`; or the
            score of a `worker.images.ood_detector.OodDetector`, which has seen pictures that are no dermoscopy.
        file: holds the statistics or the detector.
        limit: distance or score beyond which an image is ungradable. None in bundles from before this gate.
        noted: distance or score beyond which an image is noted as unusual. None in bundles from before it.
        distances: quantiles of the distance or score of other images of the data set.
        caught: share of the pictures without dermoscopy beyond the limit, by a detector that had not seen their folder.
            None where there were none.
    """

    kind: Literal["distance", "detector"] = "distance"
    file: str
    limit: Annotated[Number, Field(gt=0)] | None = None
    noted: Number | None = None
    distances: dict[str, Number]
    caught: Share | None = None


class PrecisionCost(_Part):
    """What a precision changes against 32-bit floats, on the images that calibration and thresholds were chosen on.

    Args:
        images: of the two classes.
        layers: convolutions that compute with 8 bits. None for another precision.
        auroc_difference: area under the ROC curve, minus that of 32-bit floats.
        sensitivity_difference: by policy, sensitivity at the specificity that 32-bit floats have there, minus theirs.
    """

    images: int = Field(ge=1)
    layers: int | None = None
    auroc_difference: Estimate
    sensitivity_difference: dict[str, Estimate]


class Recalibration(_Part):
    """The origin of a recalibrated bundle: calibration and thresholds were fitted again on images of another clinic.

    Args:
        name: name of the original bundle.
        version: its version.
        bundle_sha256: SHA-256 of its ``bundle.json``.
        images: images used for the fit, by class.
        lesions: their lesions, by class.
        file: lists the SHA-256 of each of these images.
    """

    name: str
    version: str
    bundle_sha256: str
    images: ClassCounts
    lesions: ClassCounts
    file: str


class BundleManifest(_Part):
    """``bundle.json``."""

    format: Literal[2]
    name: str
    version: str
    created: datetime
    backbone: str
    #: In the order of the output ``class_probabilities``.
    classes: tuple[str, ...] = Field(min_length=2)
    #: The malignant ones of the classes.
    malignant: tuple[str, ...] = ()
    input: InputSpec
    outputs: tuple[str, ...]
    #: Number format that ``model.xml`` computes with.
    precision: Precision = "float32"
    #: None for 32-bit floats.
    precision_cost: PrecisionCost | None = None
    thresholds: dict[str, PolicyThreshold] = Field(min_length=1)
    calibration: Calibration
    recalibration: Recalibration | None = None
    quality: QualityLimits
    #: Quantiles (0 to 1, as text) of the calibrated probabilities that the thresholds were chosen on. Empty in bundles
    #: from before version 11.
    probabilities: dict[str, Number] = Field(default_factory=dict)
    #: None in bundles from before version 11.
    quality_notes: QualityNotes | None = None
    image_quality: ImageQuality | None = None
    out_of_distribution: OutOfDistribution | None = None
    #: File with a `worker.inference.evidence.Head`. None in bundles from before version 11.
    head: str | None = None
    metrics: BundleMetrics
    split_manifest_sha256: str
    #: File with the first `TRAINING_IMAGE_DIGITS` digits of the SHA-256 of every image of the training data set. None
    #: in older bundles.
    training_images: str | None = None
    licence: str
    files: dict[str, str]

    @model_validator(mode="after")
    def _classes_known(self) -> "BundleManifest":
        if unknown := [name for name in self.malignant if name not in self.classes]:
            raise ValueError(f"malignant: {', '.join(unknown)} is not among the classes {', '.join(self.classes)}")
        if (self.precision == "float32") != (self.precision_cost is None):
            raise ValueError("precision_cost: a bundle has it exactly when its precision is not float32")
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("classes: each must be named once")
        needed = {*_OUTPUTS, *(["class_probabilities"] if len(self.classes) > 2 else [])}
        if sorted(self.outputs) != sorted(needed):
            raise ValueError(f"outputs: expected {', '.join(sorted(needed))}, each once")
        return self

    @field_validator("name", "version", "backbone", "licence")
    @classmethod
    def _is_printable(cls, text: str) -> str:
        if not text.strip() or not text.isprintable():
            raise ValueError("expected a text that can be printed on one line")
        return text

    @field_validator("files")
    @classmethod
    def _inside(cls, files: dict[str, str]) -> dict[str, str]:
        for name in files:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(f"{name!r} is outside the bundle")
        if wrong := [name for name, digest in files.items() if not _SHA256.fullmatch(digest)]:
            raise ValueError(f"the SHA-256 of {wrong[0]!r} is not 64 hexadecimal digits")
        return files


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle whose files match their hashes."""

    folder: Path
    sha256: str
    manifest: BundleManifest
    #: Of ``bundle.json`` on disk. The manifest always has the names of the newest format.
    format: int = FORMAT

    @property
    def preprocessing(self) -> "Preprocessing":
        """Turns an image into the model's input."""
        # Here: it loads OpenCV.
        from worker.images.preprocess import Preprocessing

        spec = self.manifest.input
        return Preprocessing(size=spec.size, fit=spec.fit, reduced_decoding=spec.reduced_decoding)

    def read(self, name: str) -> bytes:
        """A file's bytes, checked against its hash again: it may have changed since the bundle was loaded.

        Raises:
            BundleError: the file cannot be read, or was changed since.
        """
        try:
            data = read_regular(self.folder / name)
        except OSError as error:
            raise _unreadable(name, error) from None
        found, expected = hashlib.sha256(data).hexdigest(), self.manifest.files.get(name)
        # A bundle that is being exported has no hashes yet.
        if self.manifest.files and found != expected:
            raise _changed(name, found, expected)
        return data

    def thresholds(self, policy: str) -> PolicyThreshold:
        """The thresholds of a triage policy.

        Raises:
            BundleError: the bundle has no such policy.
        """
        try:
            return self.manifest.thresholds[policy]
        except KeyError:
            raise BundleError(
                f"The bundle {self.manifest.name} {self.manifest.version} has no policy {printable(policy)!r}. "
                f"Choose one of {', '.join(sorted(self.manifest.thresholds))}."
            ) from None


def load_bundle(folder: Path) -> Bundle:
    """Read a bundle and check every file against its hash.

    Args:
        folder: holds ``bundle.json``.

    Raises:
        BundleError: it is missing, invalid, incomplete or changed. The text names the file.
    """
    try:
        text = read_regular(folder / MANIFEST_NAME)
    except OSError as error:
        raise BundleError(
            f"The bundle {folder} has no readable {MANIFEST_NAME} ({error.strerror}). Set DERMQ_BUNDLE to a folder "
            "that `dermq-train export` made."
        ) from None
    manifest, format_on_disk = _parse(text, folder / MANIFEST_NAME)
    if unlisted := [name for name in MODEL_FILES if name not in manifest.files]:
        raise BundleError(
            f"{folder / MANIFEST_NAME} records no SHA-256 of {', '.join(unlisted)}, so "
            "they cannot be checked. Export the bundle again."
        )
    for name, expected in manifest.files.items():
        try:
            found = sha256_of(folder / name)
        except OSError as error:
            raise _unreadable(name, error) from None
        if found != expected:
            raise _changed(name, found, expected)
    digest = hashlib.sha256(text).hexdigest()
    return Bundle(folder=folder, sha256=digest, manifest=manifest, format=format_on_disk)


def training_digests(bundle: Bundle) -> frozenset[str]:
    """First `TRAINING_IMAGE_DIGITS` digits of the SHA-256 of the images that a bundle was trained on. Empty if unknown.

    Raises:
        BundleError: the file cannot be read, or was changed since.
    """
    name = bundle.manifest.training_images
    return frozenset() if name is None else frozenset(bundle.read(name).decode("ascii", "replace").split())


def _parse(text: bytes, path: Path) -> tuple[BundleManifest, int]:
    """Validate ``bundle.json``, and say which format it has. Format 1 is read with the names of format 2."""
    try:
        content = from_json(text, allow_inf_nan=True)
        # True equals 1, and is no format.
        old = isinstance(content, dict) and content.get("format") == 1 and content["format"] is not True
        if old:
            content = {**_with_new_names(content), "format": FORMAT}
        if isinstance(content, dict) and content.get("quantisation", "") is None:
            # Bundles before version 10 have the key, and no quantisation.
            del content["quantisation"]
        return BundleManifest.model_validate_json(json.dumps(content)), 1 if old else FORMAT
    except ValidationError as error:
        problems = "; ".join(
            ": ".join(filter(None, (".".join(map(str, problem["loc"])), problem["msg"].removeprefix("Value error, "))))
            for problem in error.errors()
        )
    except ValueError as error:
        problems = str(error)
    raise BundleError(f"{path} is invalid: {printable(problems)}. Export the bundle again.")


def _with_new_names(content: Any) -> Any:
    if isinstance(content, dict):
        return {_RENAMED_KEYS.get(name, name): _with_new_names(value) for name, value in content.items()}
    return [_with_new_names(value) for value in content] if isinstance(content, list) else content


def _unreadable(name: str, error: OSError) -> BundleError:
    return BundleError(f"The bundle's file {printable(name)} cannot be read ({error.strerror}). Restore it.")


def _changed(name: str, found: str, expected: str | None) -> BundleError:
    return BundleError(
        f"The bundle's file {printable(name)} has SHA-256 {found}, but {MANIFEST_NAME} records {expected}. It was "
        "changed or damaged after the export, so nothing is scored with it. Restore the bundle."
    )


def sha256_of(path: Path) -> str:
    """SHA-256 of a regular file in hexadecimal."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def logit(probability: float) -> float:
    """Logarithm of the odds. It stays finite at 0 and 1."""
    clipped = min(max(probability, _ODDS_MARGIN), 1 - _ODDS_MARGIN)
    return math.log(clipped / (1 - clipped))
