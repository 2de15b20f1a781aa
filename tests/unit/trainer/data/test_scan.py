"""One look at every image: hashes, thumbnails that are kept, and broken images that are named."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from trainer.data.scan import THUMBNAIL_SIDE, refuse_faults, scan_images
from trainer.errors import DatasetError
from trainer.run_records import data_sha256
from worker.images.opencv import cv2
from worker.synthetic.lesion import draw_lesion


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    found = []
    for seed in range(3):
        found.append(tmp_path / f"{seed}.png")
        assert cv2.imwrite(str(found[-1]), cv2.cvtColor(draw_lesion(seed, width=64, height=48), cv2.COLOR_RGB2BGR))
    return found


def test_each_file_is_hashed_and_seen_small(paths: list[Path], tmp_path: Path) -> None:
    found = scan_images(paths, tmp_path / "cache")
    assert found.sha256 == [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    assert found.faults == ["", "", ""]
    assert found.thumbnails.shape == (3, THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    grey = cv2.cvtColor(draw_lesion(1, width=64, height=48), cv2.COLOR_RGB2GRAY)
    assert found.thumbnails[1].mean() == pytest.approx(grey.mean(), abs=1)


def test_what_was_seen_is_not_decoded_again(paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import trainer.data.scan

    first = scan_images(paths[:2], tmp_path / "cache")
    decoded = []
    decode = trainer.data.scan.decode
    monkeypatch.setattr(trainer.data.scan, "decode", lambda content: decoded.append(content) or decode(content))
    # By content: another name is the same image, and a changed file is another one.
    renamed = tmp_path / "renamed.png"
    renamed.write_bytes(paths[0].read_bytes())
    again = scan_images([renamed, paths[2]], tmp_path / "cache")
    assert decoded == [paths[2].read_bytes()]
    assert np.array_equal(again.thumbnails[0], first.thumbnails[0])
    scan_images(paths, tmp_path / "cache")
    assert len(decoded) == 1


def test_broken_images_are_reported_and_not_remembered(paths: list[Path], tmp_path: Path) -> None:
    whole = paths[1].read_bytes()
    paths[1].write_bytes(whole[:40])
    found = scan_images(paths, tmp_path / "cache")
    assert [bool(fault) for fault in found.faults] == [False, True, False]
    assert "damaged" in found.faults[1] or "too early" in found.faults[1]
    assert not found.thumbnails[1].any()
    paths[1].write_bytes(whole)
    assert scan_images(paths, tmp_path / "cache").faults == ["", "", ""]


def test_every_broken_image_is_counted_and_named() -> None:
    images = pd.DataFrame(
        {"image_id": [f"ISIC_{number}" for number in range(60)], "fault": ["the file is empty"] * 50 + [""] * 10}
    )
    with pytest.raises(DatasetError, match=r"^50 of 60 images cannot be used:") as caught:
        refuse_faults(images)
    assert all(f"ISIC_{number}: the file is empty" in str(caught.value) for number in range(50))
    assert "--skip-corrupt" in str(caught.value)
    refuse_faults(images[50:])


def test_the_datas_hash_knows_content_and_labels_and_no_order() -> None:
    frame = pd.DataFrame({"image_id": ["a", "b"], "lesion_id": ["l", "m"], "dx": ["mel", "nv"], "sha256": ["0", "1"]})
    digest = data_sha256(frame)
    assert data_sha256(frame[::-1]) == digest
    for column, value in (("dx", "nv"), ("sha256", "2"), ("lesion_id", "k")):
        assert data_sha256(frame.assign(**{column: [value, frame[column][1]]})) != digest
