"""Draws that are balanced by class and source."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.config import RunConfig
from trainer.errors import InputError
from trainer.presets import configure
from trainer.training.balanced_batches import source_shares
from trainer.training.batches import training_batches

CELLS = st.lists(st.tuples(st.integers(0, 1), st.integers(1, 500), st.booleans()), min_size=2, max_size=12).filter(
    lambda cells: {label for label, _, _ in cells} == {0, 1}
)


@given(cells=CELLS, share=st.floats(0.05, 0.95), power=st.floats(0, 1))
def test_both_classes_are_drawn_equally_often(cells: list[tuple[int, int, bool]], share: float, power: float) -> None:
    labels, images, first = (np.array(column) for column in zip(*cells, strict=True))
    shares = np.array(source_shares(labels, images, first, first_share=share, power=power))
    assert shares.sum() == pytest.approx(1)
    assert (shares > 0).all()
    for label in (0, 1):
        of_class = labels == label
        assert shares[of_class].sum() == pytest.approx(0.5)
        # The first data set has its share, unless the class is only there, or only elsewhere.
        if 0 < first[of_class].sum() < of_class.sum():
            assert shares[of_class & first].sum() == pytest.approx(share / 2)


def test_a_small_source_is_drawn_more_often_than_it_occurs() -> None:
    labels, images = np.array([1, 1, 0]), np.array([100, 900, 50])
    shares = source_shares(labels, images, np.zeros(3, bool), first_share=0.5, power=0.5)
    assert shares == pytest.approx([0.125, 0.375, 0.5])
    with pytest.raises(InputError, match="There are no nevi to train on"):
        source_shares(labels[:2], images[:2], np.zeros(2, bool), first_share=0.5, power=0.5)


def test_an_epoch_has_the_shares_that_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        ("mel", "vienna", "HAM10000", 20),
        ("nv", "vienna", "HAM10000", 400),
        ("mel", "new-york", "more", 60),
        ("nv", "new-york", "more", 90),
        ("mel", "barcelona", "more", 200),
    ]
    train = pd.DataFrame(
        [row[:3] for row in rows for _ in range(row[3])], columns=["dx", "dataset", "collection"]
    ).assign(path="")
    train["label"] = (train["dx"] == "mel").astype(int)
    numbers = np.arange(len(train), dtype=np.uint16)
    images = np.zeros((len(train), 32, 32, 3), np.uint8)
    images[..., 0], images[..., 1] = (numbers % 256)[:, None, None], (numbers // 256)[:, None, None]
    monkeypatch.setattr("trainer.training.batches.load_resized_cache", lambda paths, cache, preprocessing: images)
    settings = {"size": 32, "draw": "sources", "ham10000_share": 0.25, "samples_per_epoch": 4000, "sampling_power": 0}
    batches = training_batches(train, None, RunConfig(**settings))  # type: ignore[arg-type]
    chosen, labels = zip(*(batches._batch(index) for index in range(len(batches))), strict=True)
    drawn = train.iloc[np.concatenate(chosen)]
    assert np.array_equal(np.concatenate(labels)[:, 0], drawn["label"])
    counts = drawn.groupby(["dx", "dataset"]).size()
    assert counts.to_dict() == {
        ("mel", "vienna"): 500,
        ("mel", "new-york"): 750,
        ("mel", "barcelona"): 750,
        ("nv", "vienna"): 500,
        ("nv", "new-york"): 1500,
    }


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"draw": "sources", "classes": "seven"}, "--draw sources needs --classes two"),
        ({"ham10000_share": 0.3}, "--ham10000-share has no effect with --draw melanomas"),
        ({"samples_per_epoch": 900}, "--samples-per-epoch has no effect with --draw melanomas"),
        ({"draw": "sources", "source_balanced": True}, "--source-balanced has no effect with --draw sources"),
        ({"draw": "sources", "ham10000_share": 1.0}, "--ham10000-share 1.0 is wrong"),
        ({"fold": "source:", "checkpoint": "last"}, "is no fold"),
        ({"fold": "source:a+", "checkpoint": "last"}, "is no fold"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        configure("clean", given)
