"""Mixup: what becomes of images and labels, against worked numbers."""

import numpy as np
import pytest

from trainer.augmentation.mixup import mixup

#: Image number n is n all over, and its label is that of the class n.
IMAGES = np.arange(4, dtype=np.float32)[:, None, None, None] * np.ones((1, 2, 2, 3), np.float32)
LABELS = np.eye(4, dtype=np.float32)


def test_an_image_is_blended_as_its_label_says() -> None:
    images, labels = mixup(IMAGES, LABELS, 1.0, np.random.default_rng(0))
    assert images.shape == IMAGES.shape
    assert images.dtype == labels.dtype == np.float32
    # Where every image is its number, a blended one is the mean of the numbers by the shares in its label.
    assert images[:, 0, 0, 0] == pytest.approx(labels @ np.arange(4))
    assert (images == images[:, :1, :1, :1]).all()
    assert labels.sum(axis=1) == pytest.approx(1)


def test_the_larger_share_stays_with_the_image_itself() -> None:
    for seed in range(50):
        _, labels = mixup(IMAGES, LABELS, 1.0, np.random.default_rng(seed))
        assert (labels.diagonal() >= 0.5).all()


@pytest.mark.parametrize(("alpha", "share"), [(0.2, 0.899), (1.0, 0.75)])
def test_alpha_says_how_strongly(alpha: float, share: float) -> None:
    """Mean of the larger part of Beta(alpha, alpha): 1 - I(1/2; alpha + 1, alpha), by the incomplete beta function."""
    images, labels = np.zeros((2000, 1, 1, 1), np.float32), np.eye(2000, dtype=np.float32)
    _, blended = mixup(images, labels, alpha, np.random.default_rng(1))
    assert blended.diagonal().mean() == pytest.approx(share, abs=0.01)


def test_zero_changes_nothing() -> None:
    images, labels = mixup(IMAGES, LABELS, 0.0, np.random.default_rng(0))
    assert images is IMAGES
    assert labels is LABELS
