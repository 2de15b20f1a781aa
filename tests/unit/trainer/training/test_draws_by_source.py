"""Draws that are balanced by class and source."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from trainer.config import RunConfig
from trainer.data.diagnoses import DIAGNOSES
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


#: Diagnosis, source, data set and number of images.
CLINICS = [
    ("mel", "vienna", "HAM10000", 20),
    ("nv", "vienna", "HAM10000", 400),
    ("mel", "new-york", "more", 60),
    ("nv", "new-york", "more", 90),
    ("mel", "barcelona", "more", 200),
]


def epoch(
    rows: list[tuple[str, str, str, int]], monkeypatch: pytest.MonkeyPatch, **settings: object
) -> tuple[pd.DataFrame, NDArray[np.float32]]:
    """The images of an epoch, in the order of its batches, and their labels."""
    train = pd.DataFrame(
        [row[:3] for row in rows for _ in range(row[3])], columns=["dx", "dataset", "collection"]
    ).assign(path="")
    train["label"] = (train["dx"] == "mel").astype(int)
    numbers = np.arange(len(train), dtype=np.uint16)
    images = np.zeros((len(train), 32, 32, 3), np.uint8)
    images[..., 0], images[..., 1] = (numbers % 256)[:, None, None], (numbers // 256)[:, None, None]
    monkeypatch.setattr("trainer.training.batches.load_resized_cache", lambda paths, cache, preprocessing: images)
    asked = {"size": 32, "draw": "sources", "ham10000_share": 0.25, "samples_per_epoch": 4000, "sampling_power": 0}
    batches = training_batches(train, None, RunConfig(**{**asked, **settings}))  # type: ignore[arg-type]
    chosen, labels = zip(*(batches._batch(index) for index in range(len(batches))), strict=True)
    return train.iloc[np.concatenate(chosen)], np.concatenate(labels)


def test_an_epoch_has_the_shares_that_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, labels = epoch(CLINICS, monkeypatch)
    assert np.array_equal(labels[:, 0], drawn["label"])
    counts = drawn.groupby(["dx", "dataset"]).size()
    assert counts.to_dict() == {
        ("mel", "vienna"): 500,
        ("mel", "new-york"): 750,
        ("mel", "barcelona"): 750,
        ("nv", "vienna"): 500,
        ("nv", "new-york"): 1500,
    }


def test_with_seven_classes_a_third_is_of_the_other_diagnoses(monkeypatch: pytest.MonkeyPatch) -> None:
    others = [("bcc", "vienna", "HAM10000", 40), ("vasc", "vienna", "HAM10000", 10), ("bcc", "barcelona", "more", 50)]
    drawn, labels = epoch(
        CLINICS + others, monkeypatch, classes="seven", samples_per_epoch=3000, ham10000_share=0.5, sampling_power=0.5
    )
    assert labels.shape == (3000, len(DIAGNOSES))
    assert [DIAGNOSES[number] for number in labels.argmax(axis=1)] == drawn["dx"].tolist()
    # 90 basal cell carcinomas and 10 vascular lesions, by their square roots.
    assert drawn["dx"].value_counts().to_dict() == {"mel": 1000, "nv": 1000, "bcc": 750, "vasc": 250}
    assert (drawn.loc[drawn["dx"] == "nv", "dataset"] == "vienna").sum() == 500


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"draw": "melanomas", "classes": "seven"}, "--draw has no effect with --classes seven"),
        ({"ham10000_share": 0.3, "classes": "seven"}, "--ham10000-share has no effect with --draw melanomas"),
        (
            {"draw": "sources", "classes": "seven", "histology_nevi_share": 0.5},
            "--histology-nevi-share has no effect with --draw sources",
        ),
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
