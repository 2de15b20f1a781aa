"""The settings of a training run: names, ranges, defaults and help texts in one model."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from trainer.errors import InputError
from worker.atomic_files import write_text
from worker.images.fit import Fit

#: Fold of a run that is trained on all images outside test.
ALL_FOLDS = "all"
#: Beginning of a fold that holds whole sources out.
SOURCE_FOLD = "source:"
#: Share of the diagnoses that are neither melanoma nor nevus in an epoch of seven classes that is drawn by source.
OTHER_DIAGNOSES_SHARE = 1 / 3
#: Settings that were renamed, with their present names.
RENAMED_SETTINGS = {
    "gamma": "focal_gamma",
    "alpha": "focal_alpha",
    "draws": "samples_per_epoch",
    "keep": "checkpoint",
    "proven_nevi": "histology_nevi_share",
}

_NotNegative = Annotated[float, Field(ge=0)]
_BelowOne = Annotated[float, Field(ge=0, lt=1)]
_Probability = Annotated[float, Field(ge=0, le=1)]
# AdamW moves each weight by about its rate at every step: above 1 it learns nothing.
_LearningRate = Annotated[float, Field(gt=0, le=1)]
_Seed = Annotated[int, Field(ge=0, lt=2**32)]


def fold_and_folds(fold: str) -> tuple[int, int] | None:
    """``2/5`` as (2, 5). None for another form."""
    found = re.fullmatch(r"(\d+)/(\d+)", fold, re.ASCII)
    return (int(found[1]), int(found[2])) if found else None


def fold_sources(fold: str) -> tuple[str, ...]:
    """Sources of ``source:a+b``, (a, b). Empty for another form."""
    return tuple(fold.removeprefix(SOURCE_FOLD).split("+")) if fold.startswith(SOURCE_FOLD) else ()


class RunConfig(BaseModel):
    """Everything that decides the result of a run, apart from the data and the machine."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    preset: str = Field(
        "clean", description="clean, or reference for the project's first method, with the leaks that it has."
    )
    classes: Literal["two", "seven"] = Field(
        "two",
        description="two trains melanoma against nevus. seven trains all diagnoses and reads melanoma against nevus.",
    )
    backbone: str = Field("efficientnet-lite0", description="Network to start from. An unknown name lists all names.")
    weights: str = Field(
        "imagenet",
        description="Initial weights: imagenet, none for random numbers, a weights file, the folder of another run of "
        "the same split, whose best epoch is taken with its head, or the folder of a bundle.",
    )
    weights_sha256: str = Field(
        "",
        description="SHA-256 of that file, or of the run's best.weights.h5. Required for a file that is not the "
        "official one; always recorded.",
    )
    teachers: tuple[str, ...] = Field(
        (),
        description="A finished run of the same split as a teacher (knowledge distillation, Hinton et al., 2015): this "
        "run learns the mean of its teachers' outputs instead of the diagnoses. May be repeated.",
    )
    size: int = Field(224, ge=32, description="Side of the model's square input in pixels.")
    fit: Fit = Field(
        "cover",
        description="cover takes the middle square of an image; contain the whole frame, with mirrored borders; "
        "stretch the frame as a square.",
    )
    reduced_decoding: bool = Field(
        False,
        description="Decode a JPEG at a half, a quarter or an eighth of its size where that is enough. Workers do the "
        "same, in half of the time.",
    )
    head_epochs: int = Field(0, ge=0, description="Epochs in which only the head is trained, before the fine-tuning.")
    head_learning_rate: _LearningRate = Field(1e-3, description="Constant learning rate of these epochs.")
    epochs: int = Field(
        30,
        ge=0,
        description="Epochs of fine-tuning. With two classes an epoch is a pass over the training melanomas, with "
        "seven it is samples_per_epoch images.",
    )
    checkpoint: Literal["best", "last"] = Field(
        "best",
        description="Epoch that the model is taken from: best by validation AUC, or last, which the validation images "
        "do not influence. With artefacts, best may be an epoch that has learned little of them.",
    )
    patience: int = Field(
        0, ge=0, description="End the fine-tuning after this many epochs without a better validation AUC. 0: never."
    )
    unfreeze_last: int = Field(
        -1, ge=-1, description="Layers at the end of the backbone to fine-tune. -1: all; 0: none."
    )
    draw: Literal["melanomas", "sources"] = Field(
        "melanomas",
        description="With two classes melanomas takes each training melanoma once in an epoch, and as many nevi. "
        "sources takes samples_per_epoch images, as many melanomas as nevi, balanced by source; with seven classes a "
        "third of them are of the other diagnoses.",
    )
    ham10000_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="Share of HAM10000 in each class, with --draw sources and other data sets."
    )
    samples_per_epoch: int = Field(3500, ge=7, description="Images in an epoch, with seven classes or --draw sources.")
    sampling_power: _Probability = Field(
        0.5,
        description="With seven classes, a diagnosis is drawn in proportion to its number of images to this power, and "
        "a source with --draw sources. 1: as they occur; 0: all equally; 0.5: square-root sampling (Mahajan et al., "
        "2018).",
    )
    histology_nevi_share: _BelowOne = Field(
        0.0,
        description="Share of the drawn nevi that histology proved, with seven classes. 0: as they occur, 37% in "
        "HAM10000. The other nevi are easy to tell from melanomas.",
    )
    source_balanced: bool = Field(
        False,
        description="Draw the nevi of an epoch from the sources in the proportion of the melanomas, with two classes, "
        "so that the source does not tell the diagnosis.",
    )
    batch_normalisation: Literal["frozen", "trained"] = Field(
        "frozen", description="frozen keeps ImageNet's statistics. trained learns those of dermoscopy."
    )
    batch_size: int = Field(32, ge=1, description="Images in a batch. With two classes half of them are melanomas.")
    learning_rate: _LearningRate = Field(5e-4, description="Peak of the cosine schedule of the fine-tuning, for AdamW.")
    warmup_epochs: _NotNegative = Field(2.0, description="Epochs in which the learning rate rises to its peak.")
    weight_decay: _BelowOne = Field(1e-2, description="Decoupled weight decay of AdamW (Loshchilov & Hutter, 2019).")
    ema_momentum: _BelowOne = Field(
        0.99,
        description="Momentum of the moving average of the weights, which is kept. 0 keeps the weights themselves.",
    )
    focal_gamma: _NotNegative = Field(
        2.0, description="Focusing parameter of the focal loss (Lin et al., 2017), with two classes and no teachers."
    )
    focal_alpha: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.25, description="Weight of melanomas in the focal loss; nevi have 1 - focal_alpha."
    )
    mixup: _NotNegative = Field(
        0.0,
        description="Alpha of mixup (Zhang et al., 2018), with seven classes or teachers. 0: none; 0.3 is usual.",
    )
    artefacts: _Probability = Field(
        0.0,
        description="Probability that hair, a ruler, ink, a dark rim, blur or JPEG is drawn on a training image. "
        "Without, the model misses melanomas under hair.",
    )
    augmentation: Literal["standard", "cameras"] = Field(
        "standard",
        description="cameras changes training images more: aspect, resolution, JPEG, colour, so that they tell less of "
        "where an image came from.",
    )
    label_smoothing: _BelowOne = Field(
        0.05,
        description="Share of the label that is spread over all classes (Szegedy et "
        "al., 2016), with seven classes and no teachers.",
    )
    split: Literal["lesion-disjoint", "random-images"] = Field(
        "lesion-disjoint", description="lesion-disjoint; or random-images as in the reference preset, which leaks."
    )
    split_seed: _Seed = Field(20181, description="Seed of the split and of the folds.")
    fold: str = Field(
        "",
        description="Divide the images outside test into folds by lesion: 2/5 holds out the second of five as "
        "validation; source:NAME or source:NAME+NAME holds out these sources; all trains on all images outside test, "
        "for `dermq-train crossfit`. Needs --checkpoint last.",
    )
    near_duplicates: int = Field(
        10,
        ge=-1,
        le=64,
        description="Bits of the 64-bit perceptual hash in which near-duplicates may differ. -1: do not search.",
    )
    without_source: str = Field(
        "",
        description="Source of HAM10000 (its column dataset) to leave out of training and validation, to measure the "
        "model on a clinic that it has never seen.",
    )
    skip_corrupt: bool = Field(
        False, description="Train without the images that do not decode. Otherwise they stop the run before it begins."
    )
    seed: _Seed = Field(1, description="Seed of everything else.")
    limit: int = Field(0, ge=0, description="Use only this many lesions of each class and side, for a trial. 0: all.")

    @classmethod
    def make(cls, settings: dict[str, Any]) -> "RunConfig":
        """Validate settings.

        Raises:
            InputError: a setting has another name, is out of range, or does not go with another one.
        """
        if renamed := [name for name in settings if name in RENAMED_SETTINGS]:
            raise InputError(
                "; ".join(f"the setting {name} is now called {RENAMED_SETTINGS[name]}" for name in renamed) + "."
            )
        try:
            return cls(**settings)
        except ValidationError as error:
            raise InputError(" ".join(map(_describe, error.errors()))) from None

    @property
    def has_validation(self) -> bool:
        """Whether the run has a validation side. A run on all folds has none."""
        return self.fold != ALL_FOLDS

    @model_validator(mode="after")
    def _check_combinations(self) -> "RunConfig":
        if self.split == "random-images" and self.classes == "seven":
            raise _combination(
                "--split random-images needs --classes two: the balanced split of the reference preset holds "
                "melanomas and nevi only."
            )
        if self.head_epochs + self.epochs < 1:
            raise _combination("--epochs and --head-epochs are both 0. Train for at least one epoch.")
        if self.checkpoint == "last" and self.patience:
            raise _combination(
                f"--patience {self.patience} does not go with --checkpoint last: validation images would decide which "
                "epoch is the last. Leave one of them out."
            )
        self._check_fold()
        if self.classes == "two" and self.batch_size % 2:
            raise _combination(
                f"--batch-size {self.batch_size} is odd. With two classes it must be even, half for each class."
            )
        if self.mixup and self.classes == "two" and not self.teachers:
            raise _combination(
                f"--mixup {self.mixup} needs --classes seven or --teachers: the focal loss "
                "is not least at the share of a blended label."
            )
        return self

    def _check_fold(self) -> None:
        if not self.fold:
            return
        place = fold_and_folds(self.fold)
        is_part = place and 1 <= place[0] <= place[1] and place[1] >= 2
        if self.fold != ALL_FOLDS and not is_part and not all(fold_sources(self.fold) or ("",)):
            raise _combination(f"--fold {self.fold!r} is no fold. Write K/N, such as 2/5, source:NAME, or all.")
        if self.split == "random-images":
            raise _combination(f"--fold {self.fold} needs --split lesion-disjoint: a fold holds whole lesions.")
        if self.checkpoint != "last":
            why = (
                "an epoch chosen on the images held out has seen them"
                if self.has_validation
                else "no image is held out to choose an epoch on"
            )
            raise _combination(f"--fold {self.fold} needs --checkpoint last: {why}.")

    def write(self, folder: Path) -> None:
        """Write ``config.json`` into a run folder."""
        write_text(folder / "config.json", self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "RunConfig":
        """Read ``config.json`` of a run folder.

        Raises:
            InputError: another version of dermq made the run, or the file was changed.
        """
        try:
            return cls.model_validate_json((folder / "config.json").read_bytes())
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"]))
            new = RENAMED_SETTINGS.get(name)
            why = f"{name} is now called {new}" if new else f"{name}: {first['msg']}"
            raise InputError(
                f"{folder} was made by another version of dermq, or its config.json was changed ({why}). Use that "
                "version, or train again."
            ) from None

    def differences(self, other: "RunConfig") -> dict[str, tuple[Any, Any]]:
        """Settings that differ, each with this value and the other's."""
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in type(self).model_fields}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _combination(text: str) -> PydanticCustomError:
    return PydanticCustomError("combination", "{text}", {"text": text})


def _describe(fault: ErrorDetails) -> str:
    """A sentence about a wrong setting, or about two that do not go together."""
    if not fault["loc"]:
        return fault["msg"]
    option = f"--{'.'.join(map(str, fault['loc'])).replace('_', '-')}"
    return f"{option} {fault['input']!r} is wrong: {fault['msg'][0].lower()}{fault['msg'][1:]}."
