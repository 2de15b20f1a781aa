"""Reading HAM10000: a synthetic data set in the published layout, and the real one where it is at hand."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from trainer.data.diagnoses import melanoma_or_nevus
from trainer.data.readers.ham10000 import COLUMNS, IMAGE_FOLDERS, METADATA_NAME, read_ham10000
from trainer.errors import DatasetError
from worker.images.decode import decode
from worker.images.opencv import cv2

Row = dict[str, Any]

#: lesion, image, diagnosis; not in the order of the images, as in the published file.
IMAGES = (
    ("HAM_3", "ISIC_6", "bkl"),
    ("HAM_1", "ISIC_2", "mel"),
    ("HAM_1", "ISIC_1", "mel"),
    ("HAM_2", "ISIC_5", "nv"),
    ("HAM_4", "ISIC_3", "nv"),
    ("HAM_5", "ISIC_4", "df"),
)


def rows() -> list[Row]:
    return [
        {
            "lesion_id": lesion,
            "image_id": image,
            "dx": diagnosis,
            "dx_type": "histo",
            "age": None if image == "ISIC_4" else 55.0,
            "sex": "female",
            "localization": "back",
            "dataset": "vidir_modern",
        }
        for lesion, image, diagnosis in IMAGES
    ]


def publish(root: Path, metadata: list[Row]) -> Path:
    """Write metadata and images as published: the images lie in two folders."""
    for folder in IMAGE_FOLDERS:
        (root / folder).mkdir(parents=True)
    pd.DataFrame(metadata).to_csv(root / METADATA_NAME, index=False)
    for number, name in enumerate(dict.fromkeys(row["image_id"] for row in metadata)):
        pixels = np.full((6, 8, 3), 10 * number, np.uint8)
        assert cv2.imwrite(str(root / IMAGE_FOLDERS[number % 2] / f"{name}.jpg"), pixels)
    return root


def test_every_image_is_found_in_either_folder(tmp_path: Path) -> None:
    frame = read_ham10000(publish(tmp_path, rows()))
    assert list(frame["image_id"]) == ["ISIC_1", "ISIC_2", "ISIC_3", "ISIC_4", "ISIC_5", "ISIC_6"]
    assert set(frame.columns) == {*COLUMNS, "path"}
    for row in frame.itertuples():
        path = Path(str(row.path))
        assert path.stem == row.image_id
        assert decode(path.read_bytes()).shape == (6, 8, 3)
    assert {Path(path).parent.name for path in frame["path"]} == set(IMAGE_FOLDERS)
    assert frame.set_index("image_id").loc["ISIC_5", "lesion_id"] == "HAM_2"


def test_a_file_that_the_metadata_do_not_list_is_left_out(tmp_path: Path) -> None:
    publish(tmp_path, rows())
    assert cv2.imwrite(str(tmp_path / IMAGE_FOLDERS[0] / "ISIC_9.jpg"), np.zeros((6, 8, 3), np.uint8))
    assert "ISIC_9" not in set(read_ham10000(tmp_path)["image_id"])


def test_every_missing_image_is_named(tmp_path: Path) -> None:
    publish(tmp_path, rows())
    for name in ("ISIC_2", "ISIC_5"):
        next(tmp_path.rglob(f"{name}.jpg")).unlink()
    with pytest.raises(DatasetError, match=r"^2 of 6 images are missing .*: ISIC_2, ISIC_5\. ") as caught:
        read_ham10000(tmp_path)
    assert all(folder in str(caught.value) for folder in IMAGE_FOLDERS)
    assert "ISIC_1" not in str(caught.value)


def test_every_missing_image_is_named_however_many(tmp_path: Path) -> None:
    many = [rows()[0] | {"image_id": f"ISIC_{number:03}", "lesion_id": f"HAM_{number:03}"} for number in range(25)]
    publish(tmp_path, many)
    first, *others = sorted(tmp_path.rglob("*.jpg"))
    for path in others:
        path.unlink()
    with pytest.raises(DatasetError, match=r"^24 of 25 images are missing") as caught:
        read_ham10000(tmp_path)
    assert all(path.stem in str(caught.value) for path in others)
    assert first.stem not in str(caught.value)


def test_when_none_is_there_the_folder_is_wrong_and_no_name_helps(tmp_path: Path) -> None:
    publish(tmp_path, rows())
    for path in tmp_path.rglob("*.jpg"):
        path.unlink()
    with pytest.raises(DatasetError, match=r"^All 6 images are missing under .*\. Unpack"):
        read_ham10000(tmp_path)


def test_a_folder_of_images_that_is_missing_is_told_by_its_images(tmp_path: Path) -> None:
    publish(tmp_path, rows())
    (tmp_path / IMAGE_FOLDERS[1]).rename(tmp_path / "elsewhere")
    with pytest.raises(DatasetError, match=f"^3 of 6 images are missing under .*{IMAGE_FOLDERS[1]}"):
        read_ham10000(tmp_path)


def test_every_missing_column_is_named(tmp_path: Path) -> None:
    publish(tmp_path, [{name: row[name] for name in row if name not in ("dx", "age")} for row in rows()])
    with pytest.raises(DatasetError, match=r"lacks the columns dx, age;"):
        read_ham10000(tmp_path)


def test_an_image_listed_twice_is_refused(tmp_path: Path) -> None:
    publish(tmp_path, [*rows(), rows()[3]])
    with pytest.raises(DatasetError, match=r"lists images twice: ISIC_5\.$"):
        read_ham10000(tmp_path)


def test_a_lesion_with_two_diagnoses_is_refused(tmp_path: Path) -> None:
    publish(tmp_path, [*rows(), rows()[3] | {"image_id": "ISIC_7", "dx": "mel"}])
    with pytest.raises(DatasetError, match=r"more than one diagnosis: HAM_2\.$"):
        read_ham10000(tmp_path)


def test_a_missing_data_set_is_named_with_what_should_be_there(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        read_ham10000(tmp_path / "nowhere")
    for expected in (str(tmp_path / "nowhere"), METADATA_NAME, *IMAGE_FOLDERS):
        assert expected in str(caught.value)


def test_the_two_class_task_keeps_melanomas_and_nevi_and_labels_them(tmp_path: Path) -> None:
    everything = read_ham10000(publish(tmp_path, rows()))
    kept = melanoma_or_nevus(everything)
    assert dict(zip(kept["image_id"], kept["label"], strict=True)) == {
        "ISIC_1": 1,
        "ISIC_2": 1,
        "ISIC_3": 0,
        "ISIC_5": 0,
    }
    assert list(kept.index) == [0, 1, 2, 3]
    assert "label" not in everything.columns


@pytest.mark.ham10000
@pytest.mark.skipif("DERMQ_HAM10000" not in os.environ, reason="DERMQ_HAM10000 does not name the real data set")
def test_the_published_data_set_has_its_published_counts() -> None:
    frame = read_ham10000(Path(os.environ["DERMQ_HAM10000"]))
    assert len(frame) == 10_015
    assert frame["lesion_id"].nunique() == 7_470
    assert frame["dx"].nunique() == 7
    assert melanoma_or_nevus(frame)["label"].value_counts().to_dict() == {0: 6_705, 1: 1_113}
