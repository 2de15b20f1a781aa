"""The bundle: a trained model with everything needed to use it, and the hashes that prove it is that."""

import hashlib
import math
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from worker.errors import BundleError
from worker.images.preprocess import Fit, Preprocessing

#: The file that describes a bundle; its own SHA-256 names the bundle.
MANIFEST_NAME = "bundle.json"
#: The files that an engine loads; a bundle without their hashes is refused.
MODEL_FILES = ("model.xml", "model.bin", "model.keras")
#: Digits of a SHA-256 by which a bundle knows an image that it was made from: enough for no two to share them.
MADE_FROM_DIGITS = 16
#: What an exported model may compute with.
Precision = Literal["float32", "int8"]
#: Probabilities are kept this far from 0 and 1 before the logarithm of their odds is taken.
_ODDS_MARGIN = 1e-7


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class InputSpec(_Part):
    """What the model takes: 8-bit RGB, (n, size, size, 3); scaling of the values is in the graph."""

    size: int = Field(gt=0)
    fit: Fit
    colour_order: Literal["RGB"]
    scale: Literal["in the graph, from 0 to 255"]


class LesionSensitivity(_Part):
    """Sensitivity on the melanoma lesions that it was chosen on, one case a lesion, and what it proves.

    Args:
        lesions: how many there are.
        caught: those of which every image is at or above the threshold.
        lower_bound: one-sided 95% Clopper-Pearson bound of the share that is caught.
    """

    lesions: int = Field(ge=1)
    caught: int = Field(ge=0)
    lower_bound: float = Field(ge=0, le=1)

    @model_validator(mode="after")
    def _no_more_than_there_are(self) -> "LesionSensitivity":
        if self.caught > self.lesions:
            raise ValueError(f"caught {self.caught} of {self.lesions} lesions")
        return self


class PolicyThreshold(_Part):
    """The numbers of one triage policy, on calibrated probabilities; sensitivity and specificity are by image."""

    threshold: float = Field(gt=0, lt=1)
    borderline_from: float = Field(gt=0, lt=1)
    sensitivity: float = Field(ge=0, le=1)
    specificity: float = Field(ge=0, le=1)
    #: Bundles made before it was recorded have none.
    by_lesion: LesionSensitivity | None = None

    @model_validator(mode="after")
    def _band_below(self) -> "PolicyThreshold":
        if self.borderline_from > self.threshold:
            raise ValueError(f"borderline_from {self.borderline_from} is above the threshold {self.threshold}")
        return self


class Calibration(_Part):
    """Platt scaling: sigmoid(slope * logit(p) + intercept). Platt, "Probabilistic outputs for SVMs", 1999."""

    method: Literal["platt"]
    slope: float = Field(gt=0)
    intercept: float

    def apply(self, raw: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Calibrate probabilities; keeps their order.

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
    """Below any of these an image is ungradable."""

    short_side: int = Field(ge=1)
    contrast: float = Field(ge=0)
    sharpness: float = Field(ge=0)


class ImageQuality(_Part):
    """What the training images are like: each measure of the quality gate at some quantiles (0 to 1, as text)."""

    contrast: dict[str, float]
    sharpness: dict[str, float]


class OutOfDistribution(_Part):
    """What the training images look like, and how far from that other images of the data set are.

    Args:
        file: holds a `worker.images.out_of_distribution.Appearance`.
        limit: distance beyond which an image is ungradable; a bundle from before this gate has none.
        distances: of those images, at some quantiles.
    """

    file: str
    limit: float | None = Field(default=None, gt=0)
    distances: dict[str, float]


class Quantisation(_Part):
    """What 8-bit integers changed on the test images, against the model in floats that the metrics are of.

    Args:
        layers: convolutions that compute with 8 bits.
        images: test images of the two classes.
        auroc_difference: after minus before.
        agreement: by policy, share of images whose triage flag stayed.
    """

    layers: int = Field(ge=1)
    images: int
    auroc_difference: float
    agreement: dict[str, float]


class Recalibration(_Part):
    """Which bundle the model is of, when calibration and thresholds were fitted anew on images from elsewhere.

    Args:
        name: of that bundle.
        version: of that bundle.
        bundle_sha256: of its ``bundle.json``.
        images: that were fitted on, by class.
        lesions: that they show, by class.
        file: holds the SHA-256 of each of these images' files, a line each.
    """

    name: str
    version: str
    bundle_sha256: str
    images: dict[str, int]
    lesions: dict[str, int]
    file: str


class BundleManifest(_Part):
    """``bundle.json``."""

    format: Literal[1]
    name: str
    version: str
    created: datetime
    backbone: str
    #: In the order of the output ``class_probabilities``, where the bundle has it.
    classes: tuple[str, ...] = Field(min_length=2)
    #: Those of the classes whose probabilities add up to the probability of any malignancy.
    malignant: tuple[str, ...] = ()
    input: InputSpec
    outputs: tuple[str, ...]
    #: What ``model.xml`` computes with.
    precision: Precision = "float32"
    quantisation: Quantisation | None = None
    thresholds: dict[str, PolicyThreshold] = Field(min_length=1)
    calibration: Calibration
    recalibration: Recalibration | None = None
    quality: QualityLimits
    image_quality: ImageQuality | None = None
    out_of_distribution: OutOfDistribution | None = None
    metrics: dict[str, Any]
    split_manifest_sha256: str
    #: File with the first `MADE_FROM_DIGITS` digits of the SHA-256 of every image of the data set that it was made
    #: from, a line each; an older bundle has none.
    made_from: str | None = None
    licence: str
    files: dict[str, str]

    @model_validator(mode="after")
    def _classes_known(self) -> "BundleManifest":
        if unknown := [name for name in self.malignant if name not in self.classes]:
            raise ValueError(f"malignant: {', '.join(unknown)} is none of the classes {', '.join(self.classes)}")
        if (self.precision == "int8") != (self.quantisation is not None):
            raise ValueError(f"quantisation: goes with the precision int8, not {self.precision}")
        if ("class_probabilities" in self.outputs) != (len(self.classes) > 2):
            raise ValueError(f"outputs: class_probabilities goes with more than two classes, not {self.classes}")
        return self

    @field_validator("files")
    @classmethod
    def _inside(cls, files: dict[str, str]) -> dict[str, str]:
        for name in files:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(f"{name!r} leads out of the bundle")
        return files


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle whose every file is what its hash says."""

    folder: Path
    sha256: str
    manifest: BundleManifest

    @property
    def preprocessing(self) -> Preprocessing:
        """How an image becomes the model's input."""
        return Preprocessing(size=self.manifest.input.size, fit=self.manifest.input.fit)

    def read(self, name: str) -> bytes:
        """A file's bytes, checked once more: what an engine is given is what the hash says, whatever happens on disk.

        Raises:
            BundleError: the file cannot be read, or was changed since the bundle was loaded.
        """
        try:
            data = (self.folder / name).read_bytes()
        except OSError as error:
            raise _unreadable(name, error) from None
        found, expected = hashlib.sha256(data).hexdigest(), self.manifest.files.get(name)
        # A bundle that is still being made has no hashes.
        if self.manifest.files and found != expected:
            raise _changed(name, found, expected)
        return data

    def thresholds(self, policy: str) -> PolicyThreshold:
        """The numbers of a triage policy.

        Raises:
            BundleError: the bundle has no such policy.
        """
        try:
            return self.manifest.thresholds[policy]
        except KeyError:
            raise BundleError(
                f"Received: policy {policy!r}. Expected: one that the bundle {self.manifest.name} "
                f"{self.manifest.version} supports: {', '.join(sorted(self.manifest.thresholds))}."
            ) from None


def load_bundle(folder: Path) -> Bundle:
    """Read a bundle and check every file against its hash.

    Args:
        folder: holds ``bundle.json``.

    Raises:
        BundleError: it is missing, not understood, incomplete or changed; names the file.
    """
    try:
        text = (folder / MANIFEST_NAME).read_bytes()
    except OSError as error:
        raise BundleError(
            f"Received: {folder} as bundle; its {MANIFEST_NAME} cannot be read ({error.strerror}). Expected: a folder "
            "made by `dermq-train export`. Set DERMQ_BUNDLE to it for `dermq`."
        ) from None
    try:
        manifest = BundleManifest.model_validate_json(text)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise BundleError(f"{folder / MANIFEST_NAME} is not understood: {faults}. Export the bundle again.") from None
    if unlisted := [name for name in MODEL_FILES if name not in manifest.files]:
        raise BundleError(
            f"{folder / MANIFEST_NAME} records no SHA-256 of {', '.join(unlisted)}: what they hold could be anything. "
            "Export the bundle again."
        )
    for name, expected in manifest.files.items():
        try:
            found = sha256_of(folder / name)
        except OSError as error:
            raise _unreadable(name, error) from None
        if found != expected:
            raise _changed(name, found, expected)
    return Bundle(folder=folder, sha256=hashlib.sha256(text).hexdigest(), manifest=manifest)


def _unreadable(name: str, error: OSError) -> BundleError:
    return BundleError(f"The bundle's file {name} cannot be read ({error.strerror}). Restore it.")


def _changed(name: str, found: str, expected: str | None) -> BundleError:
    return BundleError(
        f"The bundle's file {name} has SHA-256 {found}, {MANIFEST_NAME} says {expected}: it was changed or damaged "
        "after export. Nothing is scored with it. Restore the bundle."
    )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def logit(probability: float) -> float:
    """Logarithm of the odds, kept finite at 0 and 1."""
    clipped = min(max(probability, _ODDS_MARGIN), 1 - _ODDS_MARGIN)
    return math.log(clipped / (1 - clipped))
