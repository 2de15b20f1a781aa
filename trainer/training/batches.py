"""The training images of a run, and their batches."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from trainer.augmentation.augment import Augmentation
from trainer.config import OTHER_DIAGNOSES_SHARE, RunConfig
from trainer.data.diagnoses import DIAGNOSES, melanoma_or_nevus
from trainer.data.preprocessing import preprocessing_of
from trainer.data.readers.ham10000 import NAME as HAM10000
from trainer.data.resized_cache import load_resized_cache
from trainer.data.splits import TRAIN
from trainer.training.balanced_batches import (
    BalancedBatches,
    ClassBalancedBatches,
    class_shares,
    source_shares,
    split_nevi_by_histology,
)


def training_images(images: pd.DataFrame, config: RunConfig) -> pd.DataFrame:
    """The training images: of all diagnoses, or of melanoma and nevus."""
    known = images if config.classes == "seven" else melanoma_or_nevus(images)
    return known[known["split"] == TRAIN]


def training_batches(train: pd.DataFrame, cache: Path, config: RunConfig) -> BalancedBatches | ClassBalancedBatches:
    """The batches of a run.

    Args:
        train: rows of the training images, with ``path``, ``dx`` and, with two classes, ``label``.
        cache: folder of the decoded images.
        config: the settings.
    """
    cached_images = load_resized_cache([Path(path) for path in train["path"]], cache, preprocessing_of(config))
    augmentation = Augmentation.of(config.augmentation, config.artefacts)
    if config.draw == "sources":
        return _batches_by_source(train, cached_images, augmentation, config)
    if config.classes == "two":
        return BalancedBatches(
            cached_images,
            train["label"].to_numpy(),
            size=config.size,
            batch_size=config.batch_size,
            seed=config.seed,
            augmentation=augmentation,
            mixup_alpha=config.mixup,
            sources=train["dataset"].astype(str).to_numpy(object) if config.source_balanced else None,
        )
    strata, class_of = train["dx"].map(DIAGNOSES.index).to_numpy(np.int64, copy=True), None
    shares = class_shares(np.bincount(strata, minlength=len(DIAGNOSES)), config.sampling_power)
    if config.histology_nevi_share:
        shares, class_of = split_nevi_by_histology(shares, DIAGNOSES.index("nv"), config.histology_nevi_share)
        strata[((train["dx"] == "nv") & (train["dx_type"] == "histo")).to_numpy()] = len(DIAGNOSES)
    return ClassBalancedBatches(
        cached_images,
        strata,
        shares=shares,
        class_of=class_of,
        samples_per_epoch=config.samples_per_epoch,
        size=config.size,
        batch_size=config.batch_size,
        seed=config.seed,
        augmentation=augmentation,
        mixup_alpha=config.mixup,
    )


def _batches_by_source(
    train: pd.DataFrame, cached_images: npt.NDArray[np.uint8], augmentation: Augmentation, config: RunConfig
) -> ClassBalancedBatches:
    """As many melanomas as nevi, each class from the sources as `source_shares` says.

    With seven classes a share of the draws is of the other diagnoses, by their numbers of images.
    """
    seven = config.classes == "seven"
    melanoma, nevus = (DIAGNOSES.index("mel"), DIAGNOSES.index("nv")) if seven else (1, 0)
    number = train["dx"].map(DIAGNOSES.index) if seven else train["label"]
    # The other diagnoses are not drawn by source: hardly any source but HAM10000's has them.
    source = train["dataset"].astype(str).where(number.isin((melanoma, nevus)), "")
    strata, cells = pd.factorize(pd.MultiIndex.from_arrays([number, source]), sort=True)
    classes, images = np.array([each for each, _ in cells]), np.bincount(strata)
    own = set(train.loc[train["collection"] == HAM10000, "dataset"])
    first = np.array([each in own for _, each in cells])
    of_two = np.isin(classes, (melanoma, nevus))
    shares = np.zeros(len(cells))
    shares[of_two] = source_shares(
        (classes[of_two] == melanoma).astype(np.int64),
        images[of_two],
        first[of_two],
        first_share=config.ham10000_share,
        power=config.sampling_power,
    )
    if not of_two.all():
        shares[of_two] *= 1 - OTHER_DIAGNOSES_SHARE
        shares[~of_two] = OTHER_DIAGNOSES_SHARE * np.array(class_shares(images[~of_two], config.sampling_power))
    return ClassBalancedBatches(
        cached_images,
        strata.astype(np.int64),
        shares=shares.tolist(),
        class_of=classes.tolist(),
        samples_per_epoch=config.samples_per_epoch,
        size=config.size,
        batch_size=config.batch_size,
        seed=config.seed,
        augmentation=augmentation,
        mixup_alpha=config.mixup,
        one_output=not seven,
    )
