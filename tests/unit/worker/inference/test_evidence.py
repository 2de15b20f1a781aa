"""Evidence maps: the closed form is Grad-CAM, depends on the weights, and makes nothing out of nothing."""

import numpy as np
import numpy.typing as npt
import pytest

from worker.errors import BundleError, EngineError
from worker.inference.evidence import Head, to_bytes

CHANNELS, UNITS = 12, 8


def head(seed: int = 1) -> Head:
    rng = np.random.default_rng(seed)
    return Head(
        hidden=rng.normal(size=(CHANNELS, UNITS)).astype(np.float32),
        bias=rng.normal(size=UNITS).astype(np.float32),
        output=rng.normal(size=UNITS).astype(np.float32),
    )


def made(hidden: tuple[int, ...], bias: int, output: int, *, output_of: float = 1) -> Head:
    return Head(
        hidden=np.ones(hidden, np.float32),
        bias=np.ones(bias, np.float32),
        output=np.full(output, output_of, np.float32),
    )


def feature_map(seed: int = 2) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(0, 6, (7, 7, CHANNELS)).astype(np.float32)


def logit(weights: Head, features: npt.NDArray[np.float32]) -> float:
    return float(np.maximum(features @ weights.hidden + weights.bias, 0) @ weights.output)


def test_the_gradient_is_that_of_finite_differences() -> None:
    weights, features = head(), feature_map().mean(axis=(0, 1))
    step = np.float32(1e-3)
    unit = np.eye(CHANNELS, dtype=np.float32) * step
    numeric = [(logit(weights, features + each) - logit(weights, features - each)) / (2 * step) for each in unit]
    assert weights.gradient(features) == pytest.approx(numeric, abs=1e-2)


def test_the_mean_of_the_signed_map_is_the_logits_linear_part() -> None:
    weights, found = head(), feature_map()
    features = found.mean(axis=(0, 1))
    signed = found @ weights.gradient(features)
    active = features @ weights.hidden + weights.bias > 0
    assert signed.mean() + (weights.bias * active) @ weights.output == pytest.approx(logit(weights, features), abs=1e-3)
    assert weights.evidence(features, found) == pytest.approx(np.maximum(signed, 0))


def test_a_map_depends_on_the_weights() -> None:
    found = feature_map()
    features = found.mean(axis=(0, 1))
    one, other = (head(seed).evidence(features, found).ravel() for seed in (1, 5))
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.5


def test_where_nothing_speaks_for_melanoma_the_map_is_empty() -> None:
    weights = made((CHANNELS, UNITS), UNITS, UNITS, output_of=-1)
    found = feature_map()
    evidence = weights.evidence(found.mean(axis=(0, 1)), found)
    assert not evidence.any()
    assert to_bytes(evidence) == b""


def test_a_map_is_one_byte_a_place_and_255_at_its_greatest() -> None:
    evidence = np.arange(49, dtype=np.float32).reshape(7, 7)
    data = np.frombuffer(to_bytes(evidence), np.uint8)
    assert data.shape == (49,)
    assert (data[0], data[24], data[48]) == (0, 128, 255)


def test_it_is_read_back_as_written_and_fits_its_network() -> None:
    again = Head.from_bytes(head().to_bytes())
    found = feature_map()
    features = found.mean(axis=(0, 1))
    assert np.array_equal(again.evidence(features, found), head().evidence(features, found))
    with pytest.raises(EngineError, match=r"gives 3 features, and the bundle's head.npz has 12"):
        again.evidence(features[:3], found[..., :3])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04 no archive",
        made((3,), 3, 3).to_bytes(),
        made((3, 2), 3, 2).to_bytes(),
        made((3, 2), 2, 2, output_of=np.nan).to_bytes(),
    ],
)
def test_what_is_not_understood_is_named(data: bytes) -> None:
    with pytest.raises(BundleError, match=r"weights for evidence maps are invalid \(.+\)"):
        Head.from_bytes(data)
