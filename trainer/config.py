"""The settings of a training run."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from trainer.atomic_files import write_text

#: What runs did that were made before there was a setting for it, where that is not today's default.
_BEFORE: dict[str, Any] = {"near_duplicates": -1, "sampling_power": 0.0}
#: A setting of older runs with seven classes, now `sampling_power`, and its value that drew all alike.
_SHARE_OF_TWO, _ALL_ALIKE = "share_of_two", 2 / 7

#: Least values of whole numbers. ResNet takes no images below 32 pixels; of seven diagnoses one each is drawn.
_LEAST = {
    "size": 32,
    "head_epochs": 0,
    "epochs": 0,
    "patience": 0,
    "unfreeze_last": -1,
    "draws": 7,
    "batch_size": 1,
    "limit": 0,
}
_Range = tuple[Callable[[float], bool], str]
_NOT_NEGATIVE: _Range = (lambda value: 0 <= value < math.inf, "0 or a positive number")
_BELOW_ONE: _Range = (lambda value: 0 <= value < 1, "from 0 up to, not including, 1")
_PROBABILITY: _Range = (lambda value: 0 <= value <= 1, "a probability, from 0 to 1")
# AdamW moves each weight by about its rate at every step: by more than 1 nothing is learnt.
_RATE: _Range = (lambda value: 0 < value <= 1, "above 0, and at most 1")
_SEED: _Range = (lambda value: 0 <= value < 2**32, "from 0 to 4294967295")
#: What the other numbers may be.
_RANGES = {
    "head_learning_rate": _RATE,
    "sampling_power": (_PROBABILITY[0], "from 0 to 1"),
    "proven_nevi": _BELOW_ONE,
    "learning_rate": _RATE,
    "warmup_epochs": _NOT_NEGATIVE,
    "weight_decay": _BELOW_ONE,
    "ema_momentum": _BELOW_ONE,
    "gamma": _NOT_NEGATIVE,
    "alpha": (lambda value: 0 < value < 1, "between 0 and 1"),
    "mixup": (_NOT_NEGATIVE[0], "0 or a positive number, say 0.3"),
    "artefacts": _PROBABILITY,
    "label_smoothing": _BELOW_ONE,
    "near_duplicates": (lambda value: -1 <= value <= 64, "-1, or from 0 to the 64 bits of the hash"),
    "split_seed": _SEED,
    "seed": _SEED,
}

#: Fold of a run that is trained on all images outside test.
ALL_FOLDS = "all"


def fold_and_folds(fold: str) -> tuple[int, int] | None:
    """``2/5`` as (2, 5); None for what has another form."""
    found = re.fullmatch(r"(\d+)/(\d+)", fold, re.ASCII)
    return (int(found[1]), int(found[2])) if found else None


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """Everything that decides what a run gives, beside the data and the machine.

    Args:
        preset: ``clean``, or ``reference`` for the brief that the project started from, its leaks included.
        classes: ``two`` trains melanoma against nevus; ``seven`` trains all diagnoses and reads melanoma against nevus.
        backbone: network to start from; an unknown name is answered with the known ones.
        weights: what the training starts from: ``imagenet``, ``none`` for random numbers, a file for the backbone, or
            the folder of another run of the same split, whose best epoch so far is taken with its head.
        weights_sha256: SHA-256 of that file, or of the run's ``best.weights.h5``; needed for a file that is not the
            official one, recorded always.
        teachers: a finished run of the same split that teaches this one: in place of an image's diagnosis this run
            learns what its teachers say of it together (Hinton et al., 2015); may be repeated.
        size: side of the model's square input in pixels.
        head_epochs: epochs of the first stage, in which the head alone is trained; 0 leaves it out.
        head_learning_rate: constant rate of the first stage.
        epochs: of the fine-tuning; with two classes passes over the training melanomas, with seven rounds of `draws`.
        keep: the epoch that the model is taken from: ``best`` by validation AUC, or the ``last``, whose choice owes
            nothing to the validation images; with artefacts ``best`` may be one that has learned little of them.
        patience: epochs of fine-tuning without a greater validation AUC after which it ends; 0 goes through all.
        unfreeze_last: layers at the end of the backbone that are fine-tuned; -1 means all, 0 none.
        draws: images in an epoch, with seven classes.
        sampling_power: a diagnosis is drawn in proportion to its number of training images to this power, with seven
            classes: 1 draws them as they occur, 0 all alike, 0.5 is square-root sampling (Mahajan et al., 2018).
        proven_nevi: share of the nevi drawn that histology proved, with seven classes; 0 draws them as they occur, 37%
            in HAM10000. The others are told from melanomas without effort.
        source_balanced: draw the nevi of an epoch from HAM10000's sources in the proportion of the melanomas, with two
            classes: the source then tells nothing of the diagnosis.
        batch_normalisation: ``frozen`` keeps ImageNet's statistics; ``trained`` learns those of dermoscopy.
        batch_size: images in a batch; with two classes half of them melanomas.
        learning_rate: peak of the fine-tuning's cosine schedule, for AdamW.
        warmup_epochs: epochs in which the rate rises from zero to its peak.
        weight_decay: of AdamW, decoupled (Loshchilov & Hutter, 2019).
        ema_momentum: of the moving average of the weights, which is what is kept; 0 keeps the weights themselves.
        gamma: focusing parameter of the focal loss (Lin et al., 2017), with two classes and no teachers.
        alpha: weight of the melanoma class in the focal loss; 1 - alpha is the nevi's. Not with teachers either.
        mixup: alpha of the blending of training images in pairs (Zhang et al., 2018), with seven classes or with
            teachers; 0 for none.
        artefacts: probability that hair, a ruler, ink, a dark rim, blur or JPEG is drawn on a training image; without,
            a melanoma under hair is missed.
        label_smoothing: share of the label spread over all classes (Szegedy et al., 2016), with seven classes and no
            teachers.
        split: ``lesion-disjoint``, or ``random-images`` as in the reference, which leaks.
        split_seed: of the split, and of the folds.
        fold: the images outside test are divided anew, by lesion: ``2/5`` holds out the second of five folds as
            validation, ``all`` trains on all of them and holds out none, for `dermq-train crossfit`; empty keeps
            training and validation as the split draws them. Both ask for ``keep=last``.
        near_duplicates: bits of the perceptual hash that near-duplicates may differ by; -1 does not look for any.
        without_source: source of HAM10000, by its column `dataset`, that is left out of training and validation, to see
            how a model does on a clinic that it has never seen; empty leaves none out.
        skip_corrupt: train without the images that do not decode; otherwise they stop the run before it begins.
        seed: of everything else.
        limit: use only the first so many lesions of each class and split; 0 means all. For trying things out.
    """

    preset: str = "clean"
    classes: str = "two"
    backbone: str = "efficientnet-lite0"
    weights: str = "imagenet"
    weights_sha256: str = ""
    teachers: tuple[str, ...] = ()
    size: int = 224
    head_epochs: int = 0
    head_learning_rate: float = 1e-3
    epochs: int = 30
    keep: str = "best"
    patience: int = 0
    unfreeze_last: int = -1
    draws: int = 3500
    sampling_power: float = 0.5
    proven_nevi: float = 0.0
    source_balanced: bool = False
    batch_normalisation: str = "frozen"
    batch_size: int = 32
    learning_rate: float = 5e-4
    warmup_epochs: float = 2.0
    weight_decay: float = 1e-2
    ema_momentum: float = 0.99
    gamma: float = 2.0
    alpha: float = 0.25
    mixup: float = 0.0
    artefacts: float = 0.0
    label_smoothing: float = 0.05
    split: str = "lesion-disjoint"
    split_seed: int = 20181
    fold: str = ""
    near_duplicates: int = 10
    without_source: str = ""
    skip_corrupt: bool = False
    seed: int = 1
    limit: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (
            ("classes", ("two", "seven")),
            ("split", ("lesion-disjoint", "random-images")),
            ("batch_normalisation", ("frozen", "trained")),
            ("keep", ("best", "last")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"Received: {name}={getattr(self, name)!r}. Expected: {' or '.join(map(repr, allowed))}."
                )
        if self.split == "random-images" and self.classes == "seven":
            raise ValueError(
                "Received: split='random-images' with classes='seven'. Expected: classes='two', for the reference's "
                "balanced split holds melanomas and nevi only."
            )
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise ValueError(f"Received: {name}={getattr(self, name)}. Expected: at least {least}.")
        for name, (inside, expected) in _RANGES.items():
            # What is not a number is in no range.
            if not inside(getattr(self, name)):
                raise ValueError(f"Received: {name}={getattr(self, name)}. Expected: {expected}.")
        if self.head_epochs + self.epochs < 1:
            raise ValueError("Received: head_epochs=0 and epochs=0. Expected: at least one epoch.")
        if self.keep == "last" and self.patience:
            raise ValueError(
                f"Received: patience={self.patience} with keep='last'. Expected: one of them; which epoch is the last "
                "would be chosen on validation."
            )
        self._check_fold()
        if self.classes == "two" and self.batch_size % 2:
            raise ValueError(
                f"Received: batch_size={self.batch_size} with classes='two'. Expected: an even number, half for each "
                "class."
            )
        if self.mixup and self.classes == "two" and not self.teachers:
            raise ValueError(
                f"Received: mixup={self.mixup} with classes='two'. Expected: classes='seven' or teachers, for the "
                "focal loss does not have its least value at the share of a blended label."
            )

    @property
    def has_validation(self) -> bool:
        """Whether the run has a validation side, that is does not train on everything outside test."""
        return self.fold != ALL_FOLDS

    def _check_fold(self) -> None:
        if not self.fold:
            return
        place = fold_and_folds(self.fold)
        if self.fold != ALL_FOLDS and not (place and 1 <= place[0] <= place[1] and place[1] >= 2):
            raise ValueError(
                f"Received: fold={self.fold!r}. Expected: K/N, with N of at least 2 and K from 1 to N, such as '2/5'; "
                "or 'all'."
            )
        if self.split == "random-images":
            raise ValueError(
                f"Received: fold={self.fold!r} with split='random-images'. Expected: split='lesion-disjoint', for the "
                "folds hold whole lesions."
            )
        if self.keep != "last":
            raise ValueError(
                f"Received: fold={self.fold!r} with keep={self.keep!r}. Expected: keep='last' (--keep last), for "
                + (
                    "an epoch that is chosen on the images held out has seen them."
                    if self.has_validation
                    else "no image is held out to choose an epoch on."
                )
            )

    def write(self, folder: Path) -> None:
        """Write ``config.json`` into a run folder."""
        write_text(folder / "config.json", json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "FitConfig":
        """Read ``config.json`` of a run folder; a setting that is newer than the run has the value it had in effect.

        Raises:
            ValueError: the run was made with a setting that there is no more, or that is out of today's range.
        """
        return cls.from_settings(json.loads((folder / "config.json").read_text()), run=str(folder))

    @classmethod
    def from_settings(cls, recorded: dict[str, Any], *, run: str) -> "FitConfig":
        """As `read`, from what a report or another run recorded of a run's settings.

        Args:
            recorded: as ``config.json`` has them.
            run: name of the run, for the error.

        Raises:
            ValueError: the run was made with a setting that there is no more.
        """
        settings = {**_BEFORE, **recorded}
        share = settings.pop(_SHARE_OF_TWO, _ALL_ALIKE)
        if share != _ALL_ALIKE and settings.get("classes") == "seven":
            raise ValueError(
                f"Received: run {run}, which drew its diagnoses by {_SHARE_OF_TWO}={share}, a setting that is no "
                "more. Expected: a run of this version; use that run with the version that made it."
            )
        # JSON has no tuples.
        settings["teachers"] = tuple(settings.get("teachers", ()))
        try:
            return cls(**settings)
        except ValueError as error:
            raise ValueError(f"{run} was made with settings that this version does not take. {error}") from None

    def differences(self, other: "FitConfig") -> dict[str, tuple[Any, Any]]:
        """Settings that differ, each with this value and the other's."""
        pairs = {field.name: (getattr(self, field.name), getattr(other, field.name)) for field in fields(self)}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
