"""Near-duplicates: what is one photograph, what only looks alike, and that a split keeps the former together."""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data.near_duplicates import DISTANCE, linked_groups, near_duplicate_pairs, perceptual_hashes
from trainer.data.readers.ham10000 import read_ham10000
from trainer.data.scan import THUMBNAIL_SIDE, scan_images
from trainer.data.splits import (
    TEST,
    TRAIN,
    VALIDATION,
    check_groups_together,
    check_lesion_disjoint,
    join_groups,
    read_manifest,
    split_by_lesion,
    write_manifest,
)
from trainer.errors import SplitError
from worker.images.opencv import cv2
from worker.synthetic.lesion import draw_lesion


def thumbnail(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, (THUMBNAIL_SIDE, THUMBNAIL_SIDE), interpolation=cv2.INTER_AREA))


@pytest.fixture(scope="module")
def photograph() -> npt.NDArray[np.uint8]:
    return draw_lesion(5, width=300, height=225)


def recompressed(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1]
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(recompressed, id="another compression"),
        pytest.param(lambda image: cv2.resize(image, (200, 150)), id="another size"),
        pytest.param(lambda image: np.clip(image * 0.8 + 20, 0, 255).astype(np.uint8), id="another exposure"),
        pytest.param(lambda image: np.clip(image * (1, 0.92, 0.75), 0, 255).astype(np.uint8), id="a warmer scan"),
    ],
)
def test_the_same_photograph_is_found_again(photograph: npt.NDArray[np.uint8], change: object) -> None:
    changed = change(photograph)  # type: ignore[operator]
    both = np.stack([thumbnail(photograph), thumbnail(changed)])
    assert near_duplicate_pairs(both).tolist() == [[0, 1]]


def test_other_lesions_and_mirrored_ones_are_not_taken_for_it(photograph: npt.NDArray[np.uint8]) -> None:
    others = [draw_lesion(seed, width=300, height=225) for seed in range(100, 220)]
    mirrored = np.ascontiguousarray(photograph[:, ::-1])
    assert not len(near_duplicate_pairs(np.stack([thumbnail(image) for image in [photograph, mirrored, *others]])))


def test_alike_hashes_are_not_enough(photograph: npt.NDArray[np.uint8]) -> None:
    """The same low frequencies under another detail: one hash, two photographs."""
    spectrum = cv2.dct(thumbnail(photograph).astype(np.float32))
    made = []
    for seed in range(2):
        detail = np.random.default_rng(seed).normal(0, 12, spectrum.shape).astype(np.float32)
        detail[:8, :8] = spectrum[:8, :8]
        made.append(np.clip(np.rint(cv2.idct(detail)), 0, 255).astype(np.uint8))
    two = np.stack(made)
    hashes = perceptual_hashes(two)
    assert np.bitwise_count(hashes[0] ^ hashes[1]) <= DISTANCE
    assert not len(near_duplicate_pairs(two))


def test_plain_images_agree_with_nothing() -> None:
    assert not len(near_duplicate_pairs(np.zeros((3, THUMBNAIL_SIDE, THUMBNAIL_SIDE), np.uint8)))


def test_the_hash_says_which_low_frequencies_lie_above_their_median() -> None:
    """A wave along x alone: one strong coefficient in the first row beside the mean, the others around zero."""
    x = np.arange(THUMBNAIL_SIDE)
    wave = 100 + 60 * np.cos(np.pi * (2 * x + 1) * 3 / (2 * THUMBNAIL_SIDE))
    image = np.tile(wave, (THUMBNAIL_SIDE, 1)).astype(np.uint8)
    bits = format(int(perceptual_hashes(image[None])[0]), "064b")
    assert bits[0] == "1", "the mean"
    assert bits[3] == "1", "three half waves along the row"
    assert len(bits) == 64


def test_links_reach_over_several_lesions(photograph: npt.NDArray[np.uint8]) -> None:
    """A and B share a photograph, B and C another one."""
    other = draw_lesion(77, width=300, height=225)
    images = [photograph, recompressed(photograph), other, recompressed(other), draw_lesion(9, width=300, height=225)]
    lesions = pd.Series(["C", "B", "B", "A", "D"], index=[10, 11, 12, 13, 14])
    thumbnails = np.stack([thumbnail(image) for image in images])
    groups = linked_groups(lesions, thumbnails, DISTANCE)
    assert groups.to_dict() == {10: "A", 11: "A", 12: "A", 13: "A", 14: "D"}
    assert linked_groups(lesions, thumbnails, -1).tolist() == lesions.tolist()


#: Lesions of some diagnoses, and which of them are linked to which.
LESIONS = st.integers(21, 60)
LINKS = st.lists(st.tuples(st.integers(0, 59), st.integers(0, 59)), max_size=25)


@settings(max_examples=60, deadline=None)
@given(
    count=LESIONS, images=st.lists(st.integers(1, 3), min_size=60, max_size=60), links=LINKS, seed=st.integers(0, 99)
)
def test_no_lesion_and_no_linked_group_is_on_two_sides(
    count: int, images: list[int], links: list[tuple[int, int]], seed: int
) -> None:
    rows = [
        (f"I{lesion}_{image}", f"L{lesion:02}", "mel" if lesion % 3 == 0 else "nv")
        for lesion in range(count)
        for image in range(images[lesion])
    ]
    frame = pd.DataFrame(rows, columns=["image_id", "lesion_id", "dx"])
    # The groups by brute force: a label spreads along the links until nothing changes.
    group = {f"L{lesion:02}": f"L{lesion:02}" for lesion in range(count)}
    pairs = [(f"L{one:02}", f"L{other:02}") for one, other in links if max(one, other) < count]
    for _ in range(count):
        for one, other in pairs:
            group[one] = group[other] = min(group[one], group[other])
    frame["group"] = frame["lesion_id"].map(group)

    before = split_by_lesion(frame, seed)
    after = join_groups(before, frame["group"])
    frame["split"] = after
    check_lesion_disjoint(frame)
    assert (frame.groupby("group")["split"].nunique() == 1).all()
    # What is not linked stays where it was.
    alone = ~frame["group"].isin([name for pair in pairs if pair[0] != pair[1] for name in map(group.get, pair)])
    assert after[alone].equals(before[alone])
    # A model of the split before has seen nothing of the test split after.
    assert set(frame.index[after == TEST]) <= set(frame.index[before == TEST])
    # A group goes to the side nearest to training that it touched.
    for _, part in frame.groupby("group"):
        touched = set(before[part.index])
        assert after[part.index[0]] == next(side for side in (TRAIN, VALIDATION, TEST) if side in touched)


def test_the_groups_stand_in_the_manifest_and_are_checked(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "image_id": ["I1", "I2", "I3", "I4"],
            "lesion_id": ["L1", "L2", "L3", "L4"],
            "dx": "nv",
            "group": ["L1", "L1", "L3", "L4"],
            "split": [TRAIN, TRAIN, TEST, VALIDATION],
            "sha256": "0" * 64,
        }
    )
    write_manifest(frame, tmp_path, seed=1, near_duplicates=10)
    assert '"distance": 10' in (tmp_path / "split.json").read_text()
    read_manifest(tmp_path)
    write_manifest(frame.assign(split=[TRAIN, TEST, TEST, VALIDATION]), tmp_path, seed=1, near_duplicates=10)
    with pytest.raises(SplitError, match=r"Near-duplicate lesions L1, L2 are on two sides: test and train"):
        read_manifest(tmp_path)
    check_groups_together(frame, [["L1", "L2"]])


@pytest.mark.ham10000
@pytest.mark.skipif("DERMQ_HAM10000" not in os.environ, reason="DERMQ_HAM10000 does not name the real data set")
@pytest.mark.slow
def test_the_real_data_hold_one_photograph_twice(tmp_path: Path) -> None:
    frame = read_ham10000(Path(os.environ["DERMQ_HAM10000"]))
    thumbnails = scan_images([Path(path) for path in frame["path"]], tmp_path).thumbnails
    names, lesions = frame["image_id"], frame["lesion_id"]
    across = [
        {names[one], names[other]} for one, other in near_duplicate_pairs(thumbnails) if lesions[one] != lesions[other]
    ]
    assert across == [{"ISIC_0025226", "ISIC_0030074"}]
