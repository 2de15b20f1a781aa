"""The lesion-disjoint split and its manifest."""

import hashlib
import json
import os
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data.readers.ham10000 import read_ham10000
from trainer.data.splits import (
    FRACTIONS,
    RANDOM_IMAGES,
    TEST,
    TRAIN,
    UNUSED,
    VALIDATION,
    check_lesion_disjoint,
    hold_out_fold,
    leave_out_source,
    manifest_sha256,
    read_manifest,
    split_by_image,
    split_by_lesion,
    split_kind,
    write_manifest,
)
from trainer.errors import SplitError

SIDES = (TRAIN, VALIDATION, TEST)


def table(images_per_lesion: dict[str, list[int]]) -> pd.DataFrame:
    """Rows for lesions that have so many images each."""
    counts = [(dx, count) for dx, lesions in images_per_lesion.items() for count in lesions]
    return pd.DataFrame(
        [
            (f"ISIC_{lesion:04}_{image}", f"HAM_{lesion:04}", dx)
            for lesion, (dx, count) in enumerate(counts)
            for image in range(count)
        ],
        columns=["image_id", "lesion_id", "dx"],
    )


#: Seven lesions of a diagnosis are the fewest that `split_by_lesion` promises to take.
TABLES = st.dictionaries(
    st.sampled_from(["mel", "nv", "bkl", "bcc", "df"]),
    st.lists(st.integers(1, 4), min_size=7, max_size=40),
    min_size=1,
    max_size=4,
).map(table)


def split_table(seed: int = 1) -> pd.DataFrame:
    frame = table({"mel": [1, 2, 3] * 10, "nv": [1, 1, 2] * 20})
    return frame.assign(split=split_by_lesion(frame, seed), sha256="a" * 64)


@settings(max_examples=60, deadline=None)
@given(frame=TABLES, seed=st.integers(0, 2**32 - 1))
def test_whole_lesions_are_split_in_the_shares_of_each_diagnosis(frame: pd.DataFrame, seed: int) -> None:
    split = split_by_lesion(frame, seed)
    assert split.index.equals(frame.index)
    assert split.isin(SIDES).all()
    lesions = frame.assign(split=split).drop_duplicates(["lesion_id", "split"])
    assert len(lesions) == frame["lesion_id"].nunique(), "a lesion is on two sides"
    for _, of_diagnosis in lesions.groupby("dx"):
        for side, share in FRACTIONS.items():
            # The second draw divides what the first one left, so roundings add up.
            assert abs((of_diagnosis["split"] == side).sum() - share * len(of_diagnosis)) <= 3
    for side, share in FRACTIONS.items():
        assert abs((lesions["split"] == side).sum() - share * len(lesions)) <= 1


@settings(max_examples=25, deadline=None)
@given(frame=TABLES, seed=st.integers(0, 2**32 - 1), shuffle=st.integers(0, 1000))
def test_the_order_of_the_rows_does_not_matter(frame: pd.DataFrame, seed: int, shuffle: int) -> None:
    shuffled = frame.sample(frac=1, random_state=shuffle)
    assert split_by_lesion(shuffled, seed).sort_index().equals(split_by_lesion(frame, seed))


def test_another_seed_gives_another_split() -> None:
    assert not split_table(1)["split"].equals(split_table(2)["split"])


def test_too_few_lesions_of_a_diagnosis_are_counted() -> None:
    rows = pd.DataFrame({"lesion_id": [f"HAM_{number}" for number in range(22)], "dx": ["mel"] * 2 + ["nv"] * 20})
    with pytest.raises(SplitError, match=r"nv 20, mel 2\. Each diagnosis needs at least seven lesions"):
        split_by_lesion(rows, seed=1)


def test_the_manifest_comes_back_as_it_was_written(tmp_path: Path) -> None:
    frame = split_table().sample(frac=1, random_state=0).assign(path="/somewhere", age=50)
    digest = write_manifest(frame, tmp_path, seed=1)
    back = read_manifest(tmp_path)
    assert list(back.columns) == ["image_id", "lesion_id", "dx", "split", "sha256"]
    expected = frame.sort_values("image_id", ignore_index=True)[list(back.columns)]
    assert back.to_dict("list") == expected.to_dict("list")
    assert manifest_sha256(back) == digest


def test_the_hash_is_that_of_the_sides_and_is_recorded_with_seed_and_counts(tmp_path: Path) -> None:
    frame = split_table(seed=7)
    digest = write_manifest(frame, tmp_path, seed=7)
    written = pd.read_csv(tmp_path / "split.csv").drop(columns="sha256").to_csv(index=False)
    assert digest == hashlib.sha256(written.encode()).hexdigest()
    recorded = json.loads((tmp_path / "split.json").read_text())
    assert (recorded["seed"], recorded["sha256"]) == (7, digest)
    assert recorded["counts"][TEST] == {
        "lesions": frame.loc[frame["split"] == TEST, "lesion_id"].nunique(),
        "images": (frame["split"] == TEST).sum(),
    }
    assert sum(side["images"] for side in recorded["counts"].values()) == len(frame)


def test_the_hash_does_not_depend_on_the_order_of_the_rows() -> None:
    frame = split_table()
    assert manifest_sha256(frame) == manifest_sha256(frame.sample(frac=1, random_state=3))


def test_a_changed_split_is_refused(tmp_path: Path) -> None:
    write_manifest(split_table(), tmp_path, seed=1)
    path = tmp_path / "split.csv"
    text = path.read_text()
    # A whole lesion changes sides: still disjoint, only the hash can tell.
    first = text.splitlines()[1]
    side = first.split(",")[3]
    path.write_text(text.replace(first, first.replace(side, "test" if side == "train" else "train")))
    with pytest.raises(SplitError, match=r"split\.csv has SHA-256 [0-9a-f]{64}, and split\.json names [0-9a-f]{64}"):
        read_manifest(tmp_path)


def test_a_row_taken_out_is_refused(tmp_path: Path) -> None:
    write_manifest(split_table(), tmp_path, seed=1)
    path = tmp_path / "split.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(SplitError):
        read_manifest(tmp_path)


def test_a_lesion_on_two_sides_is_refused_by_name(tmp_path: Path) -> None:
    frame = split_table()
    check_lesion_disjoint(frame)
    siblings = frame.index[frame["lesion_id"] == "HAM_0002"]
    assert len(siblings) == 3
    frame.loc[siblings[:1], "split"] = TEST
    frame.loc[siblings[1:], "split"] = TRAIN
    with pytest.raises(SplitError, match=r"^1 lesions are on two sides of the split: HAM_0002\. Start a new run\.$"):
        check_lesion_disjoint(frame)
    write_manifest(frame, tmp_path, seed=1)
    with pytest.raises(SplitError, match="HAM_0002"):
        read_manifest(tmp_path)


class TestByImage:
    """The reference's split, which leaks."""

    def test_every_side_holds_as_many_melanomas_as_nevi(self) -> None:
        """The published counts: 1,113 melanoma images, and 223 + 223 in the brief's test split."""
        frame = table({"mel": [1] * 115 + [2] * 499, "nv": [1] * 2000, "bkl": [1] * 9})
        split = split_by_image(frame, seed=1)
        counts = frame.assign(split=split).groupby(["split", "dx"]).size().to_dict()
        assert counts[TEST, "mel"] == counts[TEST, "nv"] == 223
        assert counts[VALIDATION, "mel"] == counts[VALIDATION, "nv"] == 111
        assert counts[TRAIN, "mel"] == counts[TRAIN, "nv"] == 1113 - 223 - 111
        assert counts[UNUSED, "nv"] == 2000 - 1113
        assert counts[UNUSED, "bkl"] == 9
        assert (UNUSED, "mel") not in counts

    def test_it_repeats_by_seed_in_whatever_order_the_rows_come(self) -> None:
        frame = table({"mel": [2] * 30, "nv": [1] * 90})
        split = split_by_image(frame, seed=4)
        assert split_by_image(frame.sample(frac=1, random_state=0), seed=4).sort_index().equals(split)
        assert not split_by_image(frame, seed=5).equals(split)

    def test_it_may_tear_lesions_apart_and_the_manifest_says_so(self, tmp_path: Path) -> None:
        frame = table({"mel": [2] * 30, "nv": [1] * 90})
        frame = frame.assign(split=split_by_image(frame, seed=4), sha256="a" * 64)
        with pytest.raises(SplitError):
            check_lesion_disjoint(frame)
        write_manifest(frame, tmp_path, seed=4, kind=RANDOM_IMAGES)
        assert split_kind(tmp_path) == RANDOM_IMAGES
        assert len(read_manifest(tmp_path)) == len(frame)


@pytest.mark.ham10000
@pytest.mark.skipif("DERMQ_HAM10000" not in os.environ, reason="DERMQ_HAM10000 does not name the real data set")
def test_the_real_data_split_in_the_promised_shares() -> None:
    frame = read_ham10000(Path(os.environ["DERMQ_HAM10000"]))
    frame["split"] = split_by_lesion(frame, seed=20181)
    check_lesion_disjoint(frame)
    lesions = frame.drop_duplicates("lesion_id")
    for diagnosis in ("mel", "nv"):
        shares = lesions.loc[lesions["dx"] == diagnosis, "split"].value_counts(normalize=True)
        for side, share in FRACTIONS.items():
            assert shares[side] == pytest.approx(share, abs=0.01), f"{diagnosis} in {side}"


def test_a_source_that_is_left_out_stays_in_test_alone() -> None:
    split = pd.Series([TRAIN, VALIDATION, TEST, TRAIN])
    sources = pd.Series(["clinic", "clinic", "clinic", "practice"])
    assert list(leave_out_source(split, sources, "clinic")) == [UNUSED, UNUSED, TEST, TRAIN]
    with pytest.raises(ValueError, match=r"'ward' is no source of these data\. They have clinic, practice"):
        leave_out_source(split, sources, "ward")


@settings(deadline=None)
@given(frame=TABLES, folds=st.integers(2, 5), seed=st.integers(0, 3))
def test_each_lesion_outside_test_is_held_out_once(frame: pd.DataFrame, folds: int, seed: int) -> None:
    split = split_by_lesion(frame, seed)
    frame = frame.assign(group=frame["lesion_id"])
    held_out = pd.Series(0, index=frame.index)
    for number in range(1, folds + 1):
        divided = hold_out_fold(split, frame, f"{number}/{folds}", seed)
        assert ((divided == TEST) == (split == TEST)).all()
        check_lesion_disjoint(frame.assign(split=divided))
        held_out += divided == VALIDATION
        shuffled = frame.sample(frac=1, random_state=seed)
        assert hold_out_fold(split[shuffled.index], shuffled, f"{number}/{folds}", seed)[frame.index].equals(divided)
    assert (held_out == (split != TEST)).all()
    assert set(hold_out_fold(split, frame, "all", seed)) <= {TRAIN, TEST}


def test_near_duplicates_are_held_out_together() -> None:
    frame = split_table()
    outside = frame[frame["split"] != TEST]
    first, second = outside["lesion_id"].unique()[[0, -1]]
    groups = frame["lesion_id"].replace(second, first)
    for number in (1, 2, 3):
        divided = hold_out_fold(frame["split"], frame.assign(group=groups), f"{number}/3", 1)
        assert divided[frame["lesion_id"].isin((first, second))].nunique() == 1


def test_unused_images_stay_unused_and_too_many_folds_are_refused() -> None:
    frame = split_table().assign(group=lambda rows: rows["lesion_id"])
    split = frame["split"].mask(frame.index < 5, UNUSED)
    assert (hold_out_fold(split, frame, "1/3", 1)[:5] == UNUSED).all()
    melanomas = int(frame.loc[(frame["dx"] == "mel") & (frame["split"] != TEST), "lesion_id"].nunique())
    with pytest.raises(SplitError, match="26 folds are too many: outside test there are 25 lesions of mel"):
        hold_out_fold(frame["split"], frame, f"1/{melanomas + 1}", 1)
