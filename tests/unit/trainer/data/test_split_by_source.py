"""The split over several sources: no patient, lesion or near-duplicate on two sides, also across sources."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data.near_duplicates import linked_groups
from trainer.data.readers import read_datasets
from trainer.data.scan import scan_images
from trainer.data.splits import (
    SOURCE_FRACTIONS,
    TEST,
    TRAIN,
    UNUSED,
    VALIDATION,
    draw_split,
    hold_out_fold,
    split_by_lesion,
    split_by_source,
)
from trainer.errors import InputError

SIDES = (TRAIN, VALIDATION, TEST)


def table(sources: dict[str, int], seed: int, patients: int) -> pd.DataFrame:
    """Rows of sources with so many lesions, of 1 to 3 images and one of the patients, who come from any source."""
    rng = np.random.default_rng(seed)
    rows = []
    for source, lesions in sources.items():
        for lesion in range(lesions):
            dx = "mel" if rng.random() < 0.3 else "nv"
            patient = f"P{rng.integers(patients)}" if rng.random() < 0.5 else ""
            for image in range(int(rng.integers(1, 4))):
                name = f"{source}-{lesion}"
                rows.append((f"{name}-{image}", name, patient, dx, source, "more"))
    columns = ["image_id", "lesion_id", "patient_id", "dx", "dataset", "collection"]
    frame = pd.DataFrame(rows, columns=columns)
    thumbnails = np.zeros((len(frame), 32, 32), np.uint8)
    return frame.assign(group=linked_groups(frame["lesion_id"], thumbnails, -1, frame["patient_id"]))


def assert_apart(frame: pd.DataFrame) -> None:
    used = frame[frame["split"] != UNUSED]
    for column in ("lesion_id", "patient_id", "group"):
        known = used[used[column] != ""]
        assert known.groupby(column)["split"].nunique().max() == 1, f"one {column} on two sides"


@settings(deadline=None, max_examples=40)
@given(
    sources=st.dictionaries(st.sampled_from("abc"), st.integers(20, 60), min_size=1),
    seed=st.integers(0, 5),
    patients=st.integers(20, 200),
)
def test_patients_and_lesions_stay_on_one_side(sources: dict[str, int], seed: int, patients: int) -> None:
    frame = table(sources, seed, patients)
    frame["split"] = draw_split(frame, kind="lesion-disjoint", seed=seed)
    assert set(frame["split"]) <= set(SIDES)
    assert_apart(frame)
    shuffled = frame.drop(columns="split").sample(frac=1, random_state=seed)
    again = draw_split(shuffled, kind="lesion-disjoint", seed=seed)
    assert again.sort_index().equals(frame["split"])


def test_a_fifth_of_each_class_of_each_source_is_test() -> None:
    frame = table({"a": 400, "b": 200}, seed=1, patients=100_000)
    frame["split"] = split_by_source(frame, seed=3)
    for _, part in frame.groupby(["dataset", "dx"]):
        shares = part["split"].value_counts(normalize=True)
        for side, share in SOURCE_FRACTIONS.items():
            assert shares[side] == pytest.approx(share, abs=0.04)


def test_another_data_set_leaves_the_split_of_ham10000_as_it_was() -> None:
    ham = table({"vienna": 60}, seed=1, patients=10_000).assign(collection="HAM10000", patient_id="")
    ham["group"] = ham["lesion_id"]
    more = table({"a": 40}, seed=2, patients=10_000)
    both = pd.concat([more, ham], ignore_index=True)
    both["split"] = draw_split(both, kind="lesion-disjoint", seed=7)
    alone = split_by_lesion(ham, 7)
    assert both.loc[both["collection"] == "HAM10000", "split"].tolist() == alone.tolist()


def test_a_source_is_held_out_with_the_patients_that_it_shares() -> None:
    frame = table({"a": 60, "b": 60, "c": 60}, seed=4, patients=40)
    split = draw_split(frame, kind="lesion-disjoint", seed=4)
    frame["split"] = hold_out_fold(split, frame, "source:a+b", 4)
    held_out = frame["dataset"].isin(("a", "b")) & (split != TEST)
    assert (frame.loc[held_out, "split"] == VALIDATION).all()
    assert (frame.loc[split == TEST, "split"] == TEST).all()
    assert set(frame.loc[frame["split"] == TRAIN, "dataset"]) == {"c"}
    assert (frame["split"] == UNUSED).any(), "patients of c who are in a or b too"
    assert_apart(frame)
    with pytest.raises(InputError, match=r"names the sources d\. These data have a, b, c"):
        hold_out_fold(split, frame, "source:a+d", 4)


@pytest.mark.skipif(
    not {"DERMQ_HAM10000", "DERMQ_MORE_DERMOSCOPY"} <= set(os.environ),
    reason="DERMQ_HAM10000 or DERMQ_MORE_DERMOSCOPY is not set",
)
def test_the_real_data_sets_are_apart(tmp_path: Path) -> None:
    """No patient, lesion or near-duplicate of the real images is on two sides, whatever its source."""
    folders = [Path(os.environ[name]) for name in ("DERMQ_HAM10000", "DERMQ_MORE_DERMOSCOPY")]
    frame = read_datasets(folders).images
    seen = scan_images([Path(path) for path in frame["path"]], tmp_path)
    frame["group"] = linked_groups(frame["lesion_id"], seen.thumbnails, 10, frame["patient_id"])
    frame["split"] = draw_split(frame, kind="lesion-disjoint", seed=20181)
    assert_apart(frame)
    # Files that are the same under two names are near-duplicates.
    frame["sha256"] = seen.sha256
    assert frame.groupby("sha256")["split"].nunique().max() == 1
    melanomas = frame[(frame["split"] == TEST) & (frame["dx"] == "mel")].groupby("dataset").size()
    assert melanomas[["isic2017", "isic2020"]].min() >= 80
