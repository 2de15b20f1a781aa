"""Balanced batches: what an epoch shows, and that a run can be repeated."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from trainer.augmentation.augment import Augmentation

MELANOMAS, NEVI = 10, 60
#: Colours survive rotation and flips of a plain image, so a batch tells which image each row shows.
PLAIN = Augmentation(
    scale=(1, 1), stretch=1, shift=0, brightness=0, contrast=0, saturation=0, white_balance=0, cutout=0
)

Make = Callable[..., Any]


@pytest.fixture
def cached_images() -> npt.NDArray[np.uint8]:
    """Image number n has red level 3n + 1: truncation to 8 bits may take one away."""
    numbers = np.arange(MELANOMAS + NEVI)
    reds = np.zeros((numbers.size, 12, 16, 3), np.uint8)
    reds[..., 0] = (3 * numbers + 1)[:, None, None]
    return reds


@pytest.fixture
def labels() -> npt.NDArray[np.int64]:
    found = np.zeros(MELANOMAS + NEVI, int)
    found[::7] = 1
    assert found.sum() == MELANOMAS
    return found


@pytest.fixture
def make(cached_images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> Make:
    # Here and not above: importing TensorFlow takes ten seconds, which only who runs these tests should wait for.
    from trainer.training.balanced_batches import BalancedBatches

    def batches(**changes: Any) -> Any:
        options = {"size": 8, "batch_size": 8, "seed": 1, "augmentation": PLAIN} | changes
        return BalancedBatches(options.pop("cached_images", cached_images), options.pop("labels", labels), **options)

    return batches


def shown(images: npt.NDArray[np.float32]) -> list[int]:
    """Numbers of the images in a batch."""
    return [round(float(red) / 3) for red in images[..., 0].mean(axis=(1, 2))]


def drawn_from(batches: Any, sources: npt.NDArray[np.object_]) -> tuple[list[str], list[str]]:
    """Sources of an epoch's melanomas and of its nevi."""
    images = [shown(batches[index][0]) for index in range(len(batches))]
    labels = [batches[index][1][:, 0] for index in range(len(batches))]
    numbers, of_class = np.concatenate(images), np.concatenate(labels)
    assert len(set(numbers.tolist())) == len(numbers), "without replacement"
    return sorted(sources[numbers[of_class == 1]]), sorted(sources[numbers[of_class == 0]])


def test_each_source_gives_as_many_nevi_as_melanomas(make: Make, labels: npt.NDArray[np.int64]) -> None:
    """Else the source tells the diagnosis: half of HAM10000's nevi come from one that has hardly a melanoma."""
    sources = np.full(len(labels), "follow-up", object)
    melanomas, nevi = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    sources[melanomas[:9]] = "clinic"
    sources[nevi[:12]] = "clinic"
    batches = make(sources=sources)
    first = shown(batches[0][0])
    of_melanomas, of_nevi = drawn_from(batches, sources)
    assert of_nevi == of_melanomas == ["clinic"] * 9 + ["follow-up"]
    batches.start(1)
    assert drawn_from(batches, sources)[1] == of_melanomas
    assert shown(batches[0][0]) != first
    # As they occur, the melanomas' source would be rare among the nevi.
    assert drawn_from(make(), sources)[1].count("clinic") < 9


def test_a_source_with_too_few_nevi_gives_all_and_the_others_the_rest(
    make: Make, labels: npt.NDArray[np.int64]
) -> None:
    sources = np.full(len(labels), "follow-up", object)
    sources[labels == 1] = "clinic"
    sources[np.flatnonzero(labels == 0)[:4]] = "clinic"
    assert drawn_from(make(sources=sources), sources)[1] == ["clinic"] * 4 + ["follow-up"] * 6


def test_every_batch_holds_as_many_melanomas_as_nevi(make: Make, labels: npt.NDArray[np.int64]) -> None:
    batches = make()
    # Ten melanomas, four a batch: two full batches and one of two melanomas and two nevi.
    assert [len(batches[index][0]) for index in range(len(batches))] == [8, 8, 4]
    for index in range(len(batches)):
        images, given = batches[index]
        assert images.shape[1:] == (8, 8, 3)
        assert given.shape == (len(images), 1)
        assert images.dtype == given.dtype == np.float32
        assert given.sum() == len(images) / 2
        assert labels[shown(images)].tolist() == given[:, 0].tolist(), "a label does not belong to its image"


def test_an_epoch_shows_every_melanoma_once_and_no_nevus_twice(make: Make, labels: npt.NDArray[np.int64]) -> None:
    batches = make()
    for _ in range(3):
        images = [image for index in range(len(batches)) for image in shown(batches[index][0])]
        melanomas = [image for image in images if labels[image] == 1]
        nevi = [image for image in images if labels[image] == 0]
        assert sorted(melanomas) == np.flatnonzero(labels).tolist()
        assert len(nevi) == len(set(nevi)) == MELANOMAS
        batches.on_epoch_end()


def test_each_epoch_draws_other_nevi_and_another_order(make: Make, labels: npt.NDArray[np.int64]) -> None:
    batches = make()
    epochs = []
    for _ in range(30):
        images = [image for index in range(len(batches)) for image in shown(batches[index][0])]
        epochs.append({label: [image for image in images if labels[image] == label] for label in (0, 1)})
        batches.on_epoch_end()
    assert set(epochs[0][0]) != set(epochs[1][0])
    assert epochs[0][1] != epochs[1][1]
    # In the long run none is left out.
    assert len({nevus for epoch in epochs for nevus in epoch[0]}) == NEVI


def test_the_same_image_is_augmented_differently_in_the_next_epoch(make: Make) -> None:
    rng = np.random.default_rng(0)
    two = rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    batches = make(cached_images=two, labels=np.array([1, 0]), batch_size=2, augmentation=Augmentation())
    first = batches[0][0]
    batches.on_epoch_end()
    assert not np.array_equal(first, batches[0][0])


def test_a_run_repeats_by_seed_whatever_the_order_of_the_batches(make: Make) -> None:
    one, two, other = (make(seed=seed, augmentation=Augmentation()) for seed in (5, 5, 6))
    for batches in (one, two, other):
        batches.on_epoch_end()
    forwards = [one[index][0] for index in range(len(one))]
    backwards = [two[index][0] for index in reversed(range(len(two)))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(forwards, backwards, strict=True))
    assert not np.array_equal(forwards[0], other[0][0])


def test_values_stay_within_eight_bits(make: Make) -> None:
    images, _ = make(augmentation=Augmentation())[0]
    assert images.min() >= 0
    assert images.max() <= 255
    assert images.max() > 1, "scaling belongs to the model, not to the batches"


@pytest.mark.parametrize(("label", "counts"), [(0, "0 melanomas and 70 nevi"), (1, "70 melanomas and 0 nevi")])
def test_a_missing_class_is_refused(make: Make, label: int, counts: str) -> None:
    with pytest.raises(ValueError, match=counts):
        make(labels=np.full(MELANOMAS + NEVI, label))


def test_with_fewer_nevi_than_melanomas_the_melanomas_are_drawn(make: Make, labels: npt.NDArray[np.int64]) -> None:
    """As happens when a run is limited to a few lesions: melanomas have more images each."""
    batches = make(labels=1 - labels)
    images = [image for index in range(len(batches)) for image in shown(batches[index][0])]
    nevi = [image for image in images if labels[image] == 1]
    assert sorted(nevi) == np.flatnonzero(labels).tolist()
    assert len(set(images)) == len(images) == 2 * MELANOMAS


def test_an_epoch_can_be_started_anywhere(make: Make) -> None:
    """What a resumed run relies on: the draws follow from seed and epoch, not from what was drawn before."""
    walked, started = make(augmentation=Augmentation()), make(augmentation=Augmentation())
    for _ in range(3):
        walked.on_epoch_end()
    started.start(3)
    assert np.array_equal(walked[0][0], started[0][0])
    walked.start(0)
    assert np.array_equal(walked[1][0], make(augmentation=Augmentation())[1][0])


def test_mixup_blends_balanced_batches_too_and_their_labels(make: Make) -> None:
    plain, blended = make(), make(mixup_alpha=1.0)
    assert np.array_equal(plain[0][1][:, 0], [1, 1, 1, 1, 0, 0, 0, 0])
    images, labels = blended[0]
    assert not np.allclose(images, plain[0][0])
    # The larger part is an image's own, so that the first half stays the melanomas'.
    assert (labels[:4, 0] >= 0.5).all()
    assert (labels[4:, 0] <= 0.5).all()
    assert ((labels > 0) & (labels < 1)).any()


def test_an_odd_batch_is_refused(make: Make) -> None:
    with pytest.raises(ValueError, match="--batch-size 7"):
        make(batch_size=7)


@pytest.mark.parametrize("batch_size", [0, -2])
def test_an_empty_batch_is_refused(make: Make, batch_size: int) -> None:
    with pytest.raises(ValueError, match=f"--batch-size {batch_size}"):
        make(batch_size=batch_size)


class TestSevenClasses:
    """Class-balanced batches: every class with its share, however rare."""

    LABELS = np.array([0] * 3 + [1] * 40 + [2] * 10)

    @pytest.fixture
    def seven(self) -> Make:
        from trainer.training.balanced_batches import ClassBalancedBatches

        reds = np.zeros((len(self.LABELS), 12, 16, 3), np.uint8)
        reds[..., 0] = (3 * np.arange(len(self.LABELS)) + 1)[:, None, None]
        defaults = {
            "shares": [1 / 3] * 3,
            "samples_per_epoch": 30,
            "size": 8,
            "batch_size": 7,
            "seed": 1,
            "augmentation": PLAIN,
        }
        return lambda strata=self.LABELS, **changes: ClassBalancedBatches(reds, strata, **(defaults | changes))

    def test_every_class_is_shown_equally_often_and_with_its_label(self, seven: Make) -> None:
        batches = seven()
        images, labels = zip(*(batches[index] for index in range(len(batches))), strict=True)
        drawn = [image for part in images for image in shown(part)]
        given = np.concatenate(labels)
        assert given.shape == (30, 3)
        assert given.sum(axis=0).tolist() == [10, 10, 10]
        assert given.argmax(axis=1).tolist() == self.LABELS[drawn].tolist()
        # A rare class repeats itself evenly, a common one not at all.
        rare = [drawn.count(image) for image in range(3)]
        assert max(rare) - min(rare) <= 1
        assert len({image for image in drawn if self.LABELS[image] == 1}) == 10

    @pytest.mark.parametrize(
        ("power", "shares"),
        [(0, [1 / 3, 1 / 3, 1 / 3]), (1, [0.04, 0.32, 0.64]), (0.5, [1 / 7.828, 2.828 / 7.828, 4 / 7.828])],
    )
    def test_shares_follow_the_images_to_a_power(self, power: float, shares: list[float]) -> None:
        from trainer.training.balanced_batches import class_shares

        assert class_shares(np.array([4, 32, 64]), power) == pytest.approx(shares, abs=1e-3)

    @pytest.mark.parametrize("power", [0, 0.5, 1])
    def test_a_class_without_an_image_has_no_share(self, power: float) -> None:
        from trainer.training.balanced_batches import class_shares

        assert class_shares(np.array([9, 0, 9]), power) == [0.5, 0, 0.5]

    def test_a_class_may_be_drawn_in_two_subgroups(self, seven: Make) -> None:
        from trainer.training.balanced_batches import split_nevi_by_histology

        shares, class_of = split_nevi_by_histology([0.5, 0.3, 0.2], 1, 0.75)
        assert shares == pytest.approx([0.5, 0.075, 0.2, 0.225])
        assert class_of == [0, 1, 2, 1]
        strata = self.LABELS.copy()
        strata[20:40] = 3
        batches = seven(strata, shares=shares, class_of=class_of, samples_per_epoch=200)
        images, labels = zip(*(batches[index] for index in range(len(batches))), strict=True)
        drawn = np.array([image for part in images for image in shown(part)])
        assert np.concatenate(labels).argmax(axis=1).tolist() == self.LABELS[drawn].tolist()
        assert np.bincount(strata[drawn]).tolist() == [100, 15, 40, 45]

    def test_classes_get_their_shares_and_none_is_lost_by_rounding(self, seven: Make) -> None:
        batches = seven(shares=[0.25, 0.6, 0.15], samples_per_epoch=31)
        given = np.concatenate([batches[index][1] for index in range(len(batches))])
        assert given.sum(axis=0).tolist() == [8, 18, 5]

    def test_mixup_blends_the_images_of_a_batch_and_repeats_by_seed(self, seven: Make) -> None:
        plain, blended, again = seven(), seven(mixup_alpha=0.4), seven(mixup_alpha=0.4)
        images, labels = blended[0]
        assert not np.array_equal(labels, plain[0][1])
        assert all(np.array_equal(a, b) for a, b in zip((images, labels), again[0], strict=True))
        again.on_epoch_end()
        again.start(0)
        assert np.array_equal(images, again[0][0])

    def test_another_epoch_shows_other_images(self, seven: Make) -> None:
        batches = seven()
        first = shown(batches[0][0])
        batches.on_epoch_end()
        assert shown(batches[0][0]) != first

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"strata": np.zeros(53, int)}, r"strata \[1, 2\]"),
            ({"samples_per_epoch": 2}, "at least 3"),
            ({"shares": [0.5, 0.5, 0.5]}, "with sum 1"),
            ({"shares": [1.5, -0.5, 0.0]}, "positive numbers"),
            ({"batch_size": 0}, "--batch-size 0"),
        ],
    )
    def test_what_cannot_be_drawn_is_refused(self, seven: Make, changes: dict[str, Any], words: str) -> None:
        with pytest.raises(ValueError, match=words):
            seven(**changes)
