"""What is drawn on training images: repeatable, of every kind, and never more than asked for."""

from dataclasses import replace

import numpy as np
import pytest

from trainer.augmentation import artefacts
from trainer.augmentation.artefacts import draw_artefacts
from trainer.augmentation.augment import Augmentation
from trainer.config import RunConfig
from worker.images.colour import RGBImage
from worker.synthetic.lesion import draw_lesion

KINDS = [kind for kind, _ in artefacts._KINDS]


@pytest.fixture(scope="module")
def image() -> RGBImage:
    return np.ascontiguousarray(draw_lesion(3, width=224, height=224))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_each_kind_changes_the_image_and_not_the_one_it_was_given(kind, image: RGBImage) -> None:  # type: ignore[no-untyped-def]
    before = image.copy()
    for seed in range(8):
        changed = kind(image, np.random.default_rng(seed))
        assert changed.shape == image.shape
        assert changed.dtype == np.uint8
        assert np.array_equal(image, before)
        assert np.array_equal(changed, kind(image, np.random.default_rng(seed)))
        if (changed != image).any():
            return
    pytest.fail("eight draws changed nothing")


def test_hair_leaves_most_of_the_lesion_to_be_seen(image: RGBImage) -> None:
    covered = [
        (np.abs(artefacts._hair(image, np.random.default_rng(seed)).astype(int) - image).max(axis=2) > 20).mean()
        for seed in range(40)
    ]
    assert np.median(covered) < 0.2
    assert max(covered) < 0.6
    # And now and then there is much of it.
    assert max(covered) > 0.15


def test_it_works_at_any_size_and_for_any_draw() -> None:
    for seed in range(60):
        size = (32, 75, 260)[seed % 3]
        image = np.ascontiguousarray(draw_lesion(seed, width=size, height=size))
        assert draw_artefacts(image, np.random.default_rng(seed)).shape == image.shape


def test_as_many_images_get_some_as_asked_for(image: RGBImage) -> None:
    plain = Augmentation(
        scale=(1, 1), stretch=1, shift=0, brightness=0, contrast=0, saturation=0, white_balance=0, cutout=0
    )

    def changed(seed: int) -> bool:
        """Whether there is more to see than the rotation: the first numbers of chance are the same."""
        with_some = replace(plain, artefacts=0.5)(image, 224, np.random.default_rng(seed))
        return not np.array_equal(with_some, plain(image, 224, np.random.default_rng(seed)))

    assert 0.35 < np.mean([changed(seed) for seed in range(120)]) < 0.65


@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"--artefacts .* is wrong"):
        RunConfig.make({"artefacts": wrong})
