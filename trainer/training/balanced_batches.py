"""Balanced training batches, for two classes and for seven."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import keras
import numpy as np
import numpy.typing as npt

from trainer.augmentation.augment import Augmentation
from trainer.augmentation.mixup import Floats, mixup
from trainer.errors import InputError


class AugmentedBatches(keras.utils.PyDataset, ABC):  # type: ignore[misc]
    """Augmented images in an order that is drawn for each epoch.

    The augmentation of an image depends only on seed, epoch and place, so a run repeats whatever the number of threads.
    A subclass draws an epoch in `_draw` and gives one batch in `_batch`.
    """

    def __init__(
        self,
        cached_images: npt.NDArray[np.uint8],
        *,
        size: int,
        seed: int,
        augmentation: Augmentation,
        mixup_alpha: float = 0.0,
    ) -> None:
        super().__init__(workers=1, max_queue_size=4)
        self._cached_images, self._size, self._seed, self._augmentation = cached_images, size, seed, augmentation
        self._mixup_alpha = mixup_alpha
        self.epoch = 0

    @abstractmethod
    def _draw(self, rng: np.random.Generator) -> None:
        """Draw the images of an epoch and their order."""

    @abstractmethod
    def _batch(self, index: int) -> tuple[npt.NDArray[np.intp], Floats]:
        """Numbers of the images of a batch, (n,), and their labels, (n, classes)."""

    def __getitem__(self, index: int) -> tuple[Floats, Floats]:
        """Batch ``index`` of this epoch: images (n, size, size, 3) of 0 to 255, labels (n, classes), float32."""
        chosen, labels = self._batch(index)
        images = np.empty((len(chosen), self._size, self._size, 3), np.float32)
        for row, image in enumerate(chosen):
            rng = np.random.default_rng((self._seed, self.epoch, index, row))
            images[row] = self._augmentation(self._cached_images[image], self._size, rng)
        # The place after the last image, so that no image has the same random numbers.
        rng = np.random.default_rng((self._seed, self.epoch, index, len(chosen)))
        return mixup(images, labels, self._mixup_alpha, rng)

    def start(self, epoch: int) -> None:
        """Draw the images of an epoch and their order. A resumed run may start with any epoch."""
        self.epoch = epoch
        self._draw(np.random.default_rng((self._seed, epoch)))

    def on_epoch_end(self) -> None:
        """Draw other images and another order for the next epoch."""
        self.start(self.epoch + 1)


def class_shares(images: npt.NDArray[np.integer], power: float) -> list[float]:
    """Share of each class in an epoch.

    With equal shares, a class of 80 images repeats sixty times before a class of 4,700 was seen once. With the shares
    of the data set, melanomas are a ninth.

    Args:
        images: of each class, (classes,).
        power: 0 for equal shares, 1 for the shares of the data set, 0.5 for square-root sampling (Mahajan et al.,
            "Exploring the limits of weakly supervised pretraining", ECCV 2018).

    Returns:
        (classes,), with sum 1. A class without images has the share 0.
    """
    weights = np.where(images > 0, images.astype(np.float64) ** power, 0)
    shares: list[float] = (weights / weights.sum()).tolist()
    return shares


def source_shares(
    labels: npt.NDArray[np.integer],
    images: npt.NDArray[np.integer],
    first: npt.NDArray[np.bool_],
    *,
    first_share: float,
    power: float,
) -> list[float]:
    """Share in an epoch of each class of each source, so that both classes are drawn equally often.

    Args:
        labels: 1 for melanoma and 0 for nevus, of each cell: a class of a source. (cells,)
        images: of each cell, at least one.
        first: whether a cell is of the first data set.
        first_share: its share of a class, where another data set has images of that class too.
        power: within the first data set, and within the others, a source is drawn in proportion to its number of images
            to this power.

    Returns:
        (cells,), with sum 1.

    Raises:
        InputError: a class is missing.
    """
    shares = np.zeros(len(labels))
    for label in (0, 1):
        of_class = labels == label
        if not of_class.any():
            raise InputError(f"There are no {'melanomas' if label else 'nevi'} to train on. Both are needed.")
        for part, share in ((of_class & first, first_share), (of_class & ~first, 1 - first_share)):
            if part.any():
                weights = images[part].astype(np.float64) ** power
                alone = not (of_class & ~part).any()
                shares[part] = weights / weights.sum() * (1.0 if alone else share) / 2
    found: list[float] = shares.tolist()
    return found


def split_nevi_by_histology(
    shares: Sequence[float], nevus: int, histology_share: float
) -> tuple[list[float], list[int]]:
    """Make a stratum of the nevi that histology proved, with its own share of the nevi.

    A nevus is excised if it might be a melanoma. Nevi that were only followed up are easy to tell from melanomas, so
    the network learns less from them (hard negatives: Shrivastava et al., "Training region-based object detectors with
    online hard example mining", CVPR 2016).

    Args:
        shares: of each class, (classes,).
        nevus: number of the class.
        histology_share: share of these among the drawn nevi.

    Returns:
        Shares of the strata, (classes + 1,), the last one that of these nevi; and the class of each stratum.
    """
    strata = [*shares, shares[nevus] * histology_share]
    strata[nevus] *= 1 - histology_share
    return strata, [*range(len(shares)), nevus]


class BalancedBatches(AugmentedBatches):
    """As many melanomas as nevi in every batch.

    An epoch has each image of the rarer class once, in practice the melanomas, and as many of the other class, drawn
    without replacement: from all, or from each source as many as it has melanomas.

    Args:
        cached_images: (images, height, width, 3), uint8, RGB.
        labels: (images,), 1 for melanoma and 0 for nevus. Both must occur.
        size: side of the model's input in pixels.
        batch_size: images in a batch, even.
        seed: of the random numbers.
        augmentation: the random changes.
        mixup_alpha: see `trainer.augmentation.mixup`. 0 blends no images.
        sources: (images,), source of each image, to draw by them.

    Raises:
        InputError: a class is missing, or the batch size is not even.
    """

    def __init__(
        self,
        cached_images: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.int64],
        *,
        size: int,
        batch_size: int,
        seed: int,
        augmentation: Augmentation,
        mixup_alpha: float = 0.0,
        sources: npt.NDArray[np.object_] | None = None,
    ) -> None:
        super().__init__(cached_images, size=size, seed=seed, augmentation=augmentation, mixup_alpha=mixup_alpha)
        self._sources = sources
        self._melanomas, self._nevi = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
        self._count = min(len(self._melanomas), len(self._nevi))
        if not self._count:
            raise InputError(
                f"There are {len(self._melanomas)} melanomas and {len(self._nevi)} nevi to train on. Both are needed."
            )
        if batch_size < 2 or batch_size % 2:
            raise InputError(f"--batch-size {batch_size} must be even and at least 2, half for each class.")
        self._half = batch_size // 2
        self._draw(np.random.default_rng((seed, 0)))

    def _draw(self, rng: np.random.Generator) -> None:
        self._positives = rng.permutation(self._melanomas)[: self._count]
        if self._sources is None:
            self._negatives = rng.choice(self._nevi, self._count, replace=False)
            return
        drawn = [
            rng.permutation(self._nevi[self._sources[self._nevi] == source])[:wanted]
            for source, wanted in zip(*np.unique(self._sources[self._positives], return_counts=True), strict=True)
        ]
        # Other sources fill up where a source has fewer nevi than melanomas.
        rest = np.setdiff1d(self._nevi, np.concatenate(drawn))
        drawn.append(rng.choice(rest, self._count - sum(map(len, drawn)), replace=False))
        self._negatives = rng.permutation(np.concatenate(drawn))

    def __len__(self) -> int:
        return -(-self._count // self._half)

    def _batch(self, index: int) -> tuple[npt.NDArray[np.intp], Floats]:
        part = slice(index * self._half, (index + 1) * self._half)
        chosen = np.concatenate((self._positives[part], self._negatives[part]))
        return chosen, np.repeat(np.array([1, 0], np.float32), len(chosen) // 2)[:, None]


class ClassBalancedBatches(AugmentedBatches):
    """Epochs of a given length in which every class has a given share.

    Each class is used in random order and repeated if it is too small, so that the images of a rare class occur equally
    often.

    Args:
        cached_images: (images, height, width, 3), uint8, RGB.
        strata: (images,), number of the stratum, from 0. A stratum has a share of its own. Each must occur.
        shares: of each stratum in an epoch, all positive, with sum 1.
        class_of: class of each stratum. None when the strata are the classes.
        samples_per_epoch: images in an epoch.
        size: side of the model's input in pixels.
        batch_size: images in a batch.
        seed: of the random numbers.
        augmentation: the random changes.
        mixup_alpha: see `trainer.augmentation.mixup`. 0 blends no images.
        one_output: whether labels are those of the two-class task, (n, 1), instead of one column a class.

    Raises:
        InputError: a stratum is missing, the shares are wrong, or an epoch is too short for a rare stratum.
    """

    def __init__(
        self,
        cached_images: npt.NDArray[np.uint8],
        strata: npt.NDArray[np.int64],
        *,
        shares: Sequence[float],
        class_of: Sequence[int] | None = None,
        samples_per_epoch: int,
        size: int,
        batch_size: int,
        seed: int,
        augmentation: Augmentation,
        mixup_alpha: float = 0.0,
        one_output: bool = False,
    ) -> None:
        super().__init__(cached_images, size=size, seed=seed, augmentation=augmentation, mixup_alpha=mixup_alpha)
        self._members = [np.flatnonzero(strata == number) for number in range(len(shares))]
        if missing := [number for number, members in enumerate(self._members) if not len(members)]:
            raise InputError(f"There are no training images of the strata {missing}. Each needs at least one.")
        if min(shares, default=0) <= 0 or not math.isclose(sum(shares), 1):
            raise InputError(f"The shares {list(shares)} must be positive numbers with sum 1.")
        classes = np.arange(len(shares)) if class_of is None else np.array(class_of)
        self._labels, self._batch_size = classes[strata], batch_size
        # Rounding the cumulative sums keeps the total exact.
        ends = np.rint(np.cumsum(shares) * samples_per_epoch).astype(int)
        self._counts = np.diff(ends, prepend=0)
        self._one_hot = np.eye(classes.max() + 1, dtype=np.float32)[:, 1 if one_output else 0 :]
        if self._counts.min() < 1 or batch_size < 1:
            raise InputError(
                f"--samples-per-epoch {samples_per_epoch} with --batch-size {batch_size} is too small: an epoch needs "
                f"at least {math.ceil(1 / min(shares))} images for one of each class."
            )
        self._draw(np.random.default_rng((seed, 0)))

    def _draw(self, rng: np.random.Generator) -> None:
        drawn = [
            np.concatenate([rng.permutation(members) for _ in range(-(-count // len(members)))])[:count]
            for members, count in zip(self._members, self._counts, strict=True)
        ]
        self._order = rng.permutation(np.concatenate(drawn))

    def __len__(self) -> int:
        return -(-len(self._order) // self._batch_size)

    def _batch(self, index: int) -> tuple[npt.NDArray[np.intp], Floats]:
        chosen = self._order[index * self._batch_size : (index + 1) * self._batch_size]
        return chosen, self._one_hot[self._labels[chosen]]
