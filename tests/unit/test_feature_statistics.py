"""Distances from the training images, against the formula with the whole covariance, and the file that carries them."""

from pathlib import Path

import numpy as np
import pytest

from trainer.feature_statistics import describe_features
from worker.engine.feature_statistics import FeatureStatistics
from worker.errors import BundleError


def correlated(count: int, channels: int = 12, seed: int = 1) -> np.ndarray:
    """Features that vary along three directions above all."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(7).normal(size=(3, channels))
    return 5 + 4 * rng.normal(size=(count, 3)) @ mixing + 0.3 * rng.normal(size=(count, channels))


def test_the_distance_is_mahalanobis_under_the_described_covariance() -> None:
    features = correlated(4000)
    found = describe_features(features, components=3)
    covariance = found.rest * np.eye(12) + found.axes.T @ np.diag(found.variances - found.rest) @ found.axes
    offset = correlated(50, seed=2) - features.mean(axis=0)
    expected = np.sqrt(np.einsum("ni,ij,nj->n", offset, np.linalg.inv(covariance), offset))
    np.testing.assert_allclose(found.distance(correlated(50, seed=2)), expected, rtol=1e-6)
    # The description is close to what all the features say together.
    np.testing.assert_allclose(covariance, np.cov(features.T), atol=0.05 * np.cov(features.T).max())


def test_what_is_unlike_training_is_farther_than_all_that_is_like_it() -> None:
    found = describe_features(correlated(4000), components=3)
    like = found.distance(correlated(500, seed=3))
    assert like.mean() == pytest.approx(np.sqrt(12), rel=0.05)
    # In a direction that the training images do not vary in, a small step is a long way.
    stray = correlated(500, seed=3) + 3 * np.linalg.svd(found.axes)[2][-1]
    assert found.distance(stray).min() > np.quantile(like, 0.999)
    assert found.distance(found.mean[None])[0] == 0


def test_a_feature_that_never_fires_does_not_break_it() -> None:
    features = np.concatenate([correlated(400), np.zeros((400, 4))], axis=1)
    assert np.isfinite(describe_features(features, components=12).distance(features + 1)).all()


def test_the_file_gives_back_what_was_written(tmp_path: Path) -> None:
    found = describe_features(correlated(400), components=3)
    found.save(tmp_path / "features.npz")
    again = FeatureStatistics.load(tmp_path / "features.npz")
    np.testing.assert_allclose(again.distance(correlated(20)), found.distance(correlated(20)), rtol=1e-4)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04broken"])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "features.npz").write_bytes(content)
    with pytest.raises(BundleError, match="Export the bundle again"):
        FeatureStatistics.load(tmp_path / "features.npz")


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match="more images and more channels"):
        describe_features(correlated(10), components=11)
