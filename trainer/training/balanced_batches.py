"""Balanced training batches, for two classes and for seven."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import keras
import numpy as np
import numpy.typing as npt

from trainer.augmentation.augment import Augmentation
from trainer.augmentation.mixup import Floats, mixup


class AugmentedBatches(keras.utils.PyDataset, ABC):  # type: ignore[misc]
    """Augmented images in an order that is drawn afresh each epoch.

    What an image looks like depends only on the seed, the epoch and its place, so a run repeats whatever the number of
    workers. A subclass draws in `_draw` and answers for one batch in `_batch`.
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
        """Batch ``index`` of this epoch: images (n, size, size, 3) of 0 to 255, labels (n, classes); both float32."""
        chosen, labels = self._batch(index)
        images = np.empty((len(chosen), self._size, self._size, 3), np.float32)
        for row, image in enumerate(chosen):
            rng = np.random.default_rng((self._seed, self.epoch, index, row))
            images[row] = self._augmentation(self._cached_images[image], self._size, rng)
        # The place after the last image's, so that no image was drawn with the same numbers.
        rng = np.random.default_rng((self._seed, self.epoch, index, len(chosen)))
        return mixup(images, labels, self._mixup_alpha, rng)

    def start(self, epoch: int) -> None:
        """Draw the images of an epoch and their order, whichever epoch was drawn before: a resumed run goes on here."""
        self.epoch = epoch
        self._draw(np.random.default_rng((self._seed, epoch)))

    def on_epoch_end(self) -> None:
        """Draw other images and another order for the next epoch."""
        self.start(self.epoch + 1)


def class_shares(images: npt.NDArray[np.integer], power: float) -> list[float]:
    """Share of each class in the draws.

    With all classes alike a class of 80 images repeats itself sixty times before one of 4,700 was seen whole; as they
    occur, melanomas are a ninth. What lies between shows more nevi to every melanoma, which is what they are told from.

    Args:
        images: of each class, (classes,).
        power: 0 for all classes alike, 1 for as they occur, 0.5 for square-root sampling (Mahajan et al., "Exploring
            the limits of weakly supervised pretraining", ECCV 2018).

    Returns:
        (classes,), adding up to 1; a class without an image has none, whatever the power.
    """
    weights = np.where(images > 0, images.astype(np.float64) ** power, 0)
    shares: list[float] = (weights / weights.sum()).tolist()
    return shares


def proven_nevi_apart(shares: Sequence[float], nevus: int, proven_share: float) -> tuple[list[float], list[int]]:
    """Give the nevi that histology proved a stratum of their own, with their own share of the nevi's draws.

    A nevus is excised when it might be a melanoma; those that were only followed up are told from melanomas without
    effort, and there is less to be learned from them (negatives by hardness: Shrivastava et al., "Training region-based
    object detectors with online hard example mining", CVPR 2016).

    Args:
        shares: of each class, (classes,).
        nevus: number of the class.
        proven_share: of the nevi's draws.

    Returns:
        Shares of the strata, (classes + 1,), the last one the proven nevi's, and the class of each stratum.
    """
    strata = [*shares, shares[nevus] * proven_share]
    strata[nevus] *= 1 - proven_share
    return strata, [*range(len(shares)), nevus]


class BalancedBatches(AugmentedBatches):
    """As many melanomas as nevi in every batch; the nevi are drawn afresh each epoch.

    An epoch shows each image of the rarer class once, in practice the melanomas, and as many of the other class, drawn
    without replacement: from all, or from each source as many as it has melanomas.

    Args:
        cached_images: (images, height, width, 3), uint8, RGB.
        labels: (images,), 1 for melanoma and 0 for nevus; both must occur.
        size: side of the model's input in pixels.
        batch_size: images in a batch, even.
        seed: of the draws.
        augmentation: the random changes.
        mixup_alpha: see `trainer.augmentation.mixup`; 0 blends no images.
        sources: (images,), source of each image, to draw by them.

    Raises:
        ValueError: a class is missing, or the batch size is not even.
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
            raise ValueError(
                f"Received: {len(self._melanomas)} melanomas and {len(self._nevi)} nevi. "
                "Expected: at least one of each."
            )
        if batch_size < 2 or batch_size % 2:
            raise ValueError(
                f"Received: batch_size={batch_size}. Expected: an even number of at least 2, half for each class."
            )
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
        # Where a source has fewer nevi than melanomas, the others make up for it.
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
    """Every class with its share of an epoch of a given length, however rare it is.

    A class is walked through in random order, again and again, so that a rare one repeats itself evenly and a common
    one shows other images each epoch.

    Args:
        cached_images: (images, height, width, 3), uint8, RGB.
        strata: (images,), numbers from 0 of what is drawn with a share of its own; each must occur.
        shares: of each stratum in an epoch, all positive, adding up to 1.
        class_of: class of each stratum; None when the strata are the classes.
        draws: images in an epoch.
        size: side of the model's input in pixels.
        batch_size: images in a batch.
        seed: of the draws.
        augmentation: the random changes.
        mixup_alpha: see `trainer.augmentation.mixup`; 0 blends no images.

    Raises:
        ValueError: a stratum is missing, the shares are none, or there are so few draws that a stratum gets none.
    """

    def __init__(
        self,
        cached_images: npt.NDArray[np.uint8],
        strata: npt.NDArray[np.int64],
        *,
        shares: Sequence[float],
        class_of: Sequence[int] | None = None,
        draws: int,
        size: int,
        batch_size: int,
        seed: int,
        augmentation: Augmentation,
        mixup_alpha: float = 0.0,
    ) -> None:
        super().__init__(cached_images, size=size, seed=seed, augmentation=augmentation, mixup_alpha=mixup_alpha)
        self._members = [np.flatnonzero(strata == number) for number in range(len(shares))]
        if missing := [number for number, members in enumerate(self._members) if not len(members)]:
            raise ValueError(f"Received: no image of the strata {missing}. Expected: at least one of each.")
        if min(shares, default=0) <= 0 or not math.isclose(sum(shares), 1):
            raise ValueError(f"Received: shares={list(shares)}. Expected: positive numbers that add up to 1.")
        classes = np.arange(len(shares)) if class_of is None else np.array(class_of)
        self._labels, self._batch_size = classes[strata], batch_size
        # Ends of running sums, rounded: whatever the shares, the draws of all classes are as many as asked for.
        ends = np.rint(np.cumsum(shares) * draws).astype(int)
        self._draws = np.diff(ends, prepend=0)
        self._one_hot = np.eye(classes.max() + 1, dtype=np.float32)
        if self._draws.min() < 1 or batch_size < 1:
            raise ValueError(
                f"Received: samples_per_epoch={draws}, batch_size={batch_size}. Expected: enough draws for one of "
                "each class, at "
                f"least {math.ceil(1 / min(shares))}, in batches of at least 1."
            )
        self._draw(np.random.default_rng((seed, 0)))

    def _draw(self, rng: np.random.Generator) -> None:
        drawn = [
            np.concatenate([rng.permutation(members) for _ in range(-(-count // len(members)))])[:count]
            for members, count in zip(self._members, self._draws, strict=True)
        ]
        self._order = rng.permutation(np.concatenate(drawn))

    def __len__(self) -> int:
        return -(-len(self._order) // self._batch_size)

    def _batch(self, index: int) -> tuple[npt.NDArray[np.intp], Floats]:
        chosen = self._order[index * self._batch_size : (index + 1) * self._batch_size]
        return chosen, self._one_hot[self._labels[chosen]]
