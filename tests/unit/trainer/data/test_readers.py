"""Readers of data sets, against synthetic folders in the layout of each."""

import os
from pathlib import Path

import pandas as pd
import pytest

from tests.unit.trainer.synthetic_ham10000 import write_dataset
from trainer.data.readers import read_datasets, require_dataset
from trainer.data.readers.table import COLUMNS
from trainer.errors import DatasetError
from worker.synthetic.archive import encode
from worker.synthetic.lesion import draw_lesion


def write_images(folder: Path, names: list[str], suffix: str = ".jpg") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names):
        (folder / f"{name}{suffix}").write_bytes(encode(draw_lesion(seed, width=64, height=48), suffix))


def write_more(root: Path, rows: list[dict[str, str]]) -> Path:
    write_images(root / "images", [row["image_id"] for row in rows])
    pd.DataFrame(rows).to_csv(root / "metadata.csv", index=False)
    return root


MORE = [
    {"image_id": "ISIC_1", "dx": "mel", "source": "new-york", "lesion_id": "L1", "patient_id": "P1", "licence": "CC0"},
    {"image_id": "ISIC_2", "dx": "nv", "source": "new-york", "lesion_id": "", "patient_id": "P1", "licence": "CC0"},
]


def test_more_dermoscopy_is_read_into_the_common_columns(tmp_path: Path) -> None:
    images = read_datasets([write_more(tmp_path / "more", MORE)]).images
    assert tuple(images.columns) == COLUMNS
    assert images["dx"].tolist() == ["mel", "nv"]
    assert images["lesion_id"].tolist() == ["L1", "ISIC_2"], "an unknown lesion is the image's own"
    assert images["patient_id"].tolist() == ["P1", "P1"]
    assert set(images["dataset"]) == {"new-york"}
    assert set(images["collection"]) == {"more"}
    assert all(Path(path).is_file() for path in images["path"])


ISIC = """isic_id,attribution,copyright_license,image_type,diagnosis_1,diagnosis_2,diagnosis_3,lesion_id,age_approx
ISIC_1,Clinic A,CC-0,dermoscopic,Malignant,Malignant melanocytic proliferations (Melanoma),Melanoma in situ,IL_1,50
ISIC_2,Clinic A,CC-0,dermoscopic,Benign,Benign melanocytic proliferations,"Nevus, Atypical, Dysplastic",,35
ISIC_3,Clinic B,CC-BY,dermoscopic,Malignant,Malignant epidermal proliferations,"Squamous cell carcinoma, Invasive",,
ISIC_4,Clinic B,CC-BY,clinical: close-up,Benign,,Nevus,,
ISIC_5,Clinic B,CC-BY,dermoscopic,Malignant,,Melanoma metastasis,,
ISIC_6,Clinic B,CC-BY,dermoscopic,Benign,,Nevus,IL_2,
ISIC_7,Clinic B,CC-BY,dermoscopic,Malignant,,"Melanoma, NOS",IL_2,
ISIC_8,Clinic B,CC-BY,dermoscopic,Benign,Benign epidermal proliferations,Seborrheic keratosis,,
"""


def test_an_isic_download_is_read_and_what_is_left_out_is_counted(tmp_path: Path) -> None:
    write_images(tmp_path / "isic", [f"ISIC_{number}" for number in range(1, 9)])
    (tmp_path / "isic" / "metadata.csv").write_text(ISIC)
    found = read_datasets([tmp_path / "isic"])
    assert dict(zip(found.images["image_id"], found.images["dx"], strict=True)) == {
        "ISIC_1": "mel",
        "ISIC_2": "nv",
        "ISIC_8": "bkl",
    }
    assert found.images["dataset"].tolist() == ["Clinic A", "Clinic A", "Clinic B"]
    assert found.left_out == {
        "isic: not dermoscopic": 1,
        "isic: another diagnosis, or none": 2,
        "isic: a lesion with two diagnoses": 2,
    }


def test_an_older_isic_download_names_one_diagnosis(tmp_path: Path) -> None:
    write_images(tmp_path / "old", ["ISIC_1", "ISIC_2"])
    (tmp_path / "old" / "metadata.csv").write_text("isic_id,diagnosis\nISIC_1,melanoma\nISIC_2,nevus\n")
    assert read_datasets([tmp_path / "old"]).images["dx"].tolist() == ["mel", "nv"]


def test_the_folder_of_a_clinic_has_names_of_its_own(tmp_path: Path) -> None:
    write_images(tmp_path / "ward" / "images", ["1", "2"], ".png")
    (tmp_path / "ward" / "labels.csv").write_text(
        "image;label;lesion_id;patient_id;site\nimages/1.png;melanoma;7;12;back\nimages/2.png;nevus;;12;\n"
    )
    images = read_datasets([tmp_path / "ward"]).images
    assert images["image_id"].tolist() == ["ward/images/1.png", "ward/images/2.png"]
    assert images["lesion_id"].tolist() == ["ward/7", "ward/images/2.png"]
    assert images["patient_id"].tolist() == ["ward/12", "ward/12"]
    assert images["localization"].tolist() == ["back", ""]
    assert set(images["dataset"]) == {"ward"}


def test_several_data_sets_are_joined_and_an_image_counts_once(tmp_path: Path) -> None:
    (tmp_path / "HAM10000").mkdir()
    ham = write_dataset(tmp_path / "HAM10000", melanomas=2, nevi=2, images=1)
    known = str(read_datasets([ham]).images["image_id"].iloc[0])
    more = write_more(tmp_path / "more", [*MORE, {**MORE[0], "image_id": known, "lesion_id": "L9"}])
    found = read_datasets([ham, more])
    assert found.images["image_id"].is_unique
    assert set(found.images["collection"]) == {"HAM10000", "more"}
    assert found.left_out == {"more: already in another data set": 1}
    with pytest.raises(DatasetError, match="Two data sets are in folders named more"):
        read_datasets([more, more])


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        (None, "", "has no HAM10000_metadata.csv, no metadata.csv and no labels.csv"),
        ("metadata.csv", "name,class\n1,2\n", "neither a column isic_id nor the columns image_id, dx, source"),
        ("metadata.csv", "image_id,dx,source\nISIC_9,mel,a\n", "1 of 1 images of .* are missing: ISIC_9"),
        ("metadata.csv", "image_id,dx,source\n", "has no image that can be used"),
        (
            "metadata.csv",
            "isic_id,diagnosis\nISIC_1,wart\n",
            "no image that can be used; 1 left out: another diagnosis",
        ),
        ("metadata.csv", "image_id,dx,source\nISIC_1,wart,a\n", "has the diagnoses wart; known are akiec"),
        (
            "metadata.csv",
            "image_id,dx,source,lesion_id\nISIC_1,mel,a,L\nISIC_2,nv,a,L\n",
            "Lesions with more than one diagnosis in set: L",
        ),
        ("metadata.csv", "image_id,dx,source\nISIC_1,mel,a\nISIC_1,mel,a\n", "lists images twice: ISIC_1"),
        ("labels.csv", "image,label\nnowhere.png,melanoma\n", "1 of 1 images of labels.csv are not in"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, file: str | None, content: str, said: str) -> None:
    root = tmp_path / "set"
    write_images(root / "images", ["ISIC_1", "ISIC_2"])
    if file:
        (root / file).write_text(content)
    with pytest.raises(DatasetError, match=said):
        require_dataset(root)(root)


@pytest.mark.skipif("DERMQ_MORE_DERMOSCOPY" not in os.environ, reason="DERMQ_MORE_DERMOSCOPY is not set")
def test_the_real_data_set_of_other_clinics_is_read() -> None:
    images = read_datasets([Path(os.environ["DERMQ_MORE_DERMOSCOPY"])]).images
    assert len(images) == 4749
    counts = images.groupby(["dataset", "dx"]).size().to_dict()
    assert counts[("isic2017", "mel")] == 404
    assert counts[("bcn20000", "mel")] == 1020
    assert ("bcn20000", "nv") not in counts
    assert set(images.loc[images["patient_id"] != "", "dataset"]) == {"isic2020"}


def test_a_repeated_image_keeps_the_ties_of_its_lesion_and_patient(tmp_path: Path) -> None:
    """Otherwise an image of the same lesion, or patient, could be on another side of the split."""
    first = write_more(tmp_path / "first", [{"image_id": "A", "dx": "mel", "source": "x", "lesion_id": "1"}])
    second = write_more(
        tmp_path / "second",
        [
            {"image_id": "A", "dx": "mel", "source": "y", "lesion_id": "X1", "patient_id": "P1"},
            {"image_id": "E", "dx": "mel", "source": "y", "lesion_id": "X1", "patient_id": "P1"},
            {"image_id": "F", "dx": "nv", "source": "y", "lesion_id": "X2", "patient_id": "P1"},
        ],
    )
    images = read_datasets([first, second]).images.set_index("image_id")
    assert images.loc["E", "lesion_id"] == images.loc["A", "lesion_id"] == "1"
    assert set(images["patient_id"]) == {"P1"}


@pytest.mark.parametrize("unknown", ["unknown", "-", "?", "N/A", " nan "])
def test_unknown_patients_are_not_one_patient(tmp_path: Path, unknown: str) -> None:
    rows = [{**row, "patient_id": unknown, "lesion_id": unknown} for row in MORE]
    images = read_datasets([write_more(tmp_path / "more", rows)]).images
    assert set(images["patient_id"]) == {""}
    assert images["lesion_id"].tolist() == ["ISIC_1", "ISIC_2"]
    write_images(tmp_path / "ward", ["1", "2"], ".png")
    (tmp_path / "ward" / "labels.csv").write_text(
        f"image,label,patient_id\n1.png,melanoma,{unknown}\n2.png,nevus,{unknown}\n"
    )
    assert set(read_datasets([tmp_path / "ward"]).images["patient_id"]) == {""}


def test_a_sloppy_table_is_read(tmp_path: Path) -> None:
    root = tmp_path / "more"
    write_images(root / "images", ["ISIC_1", "ISIC_2"])
    (root / "metadata.csv").write_text(
        "\ufeffimage_id;dx;source;dataset\n ISIC_1 ;MEL;a;old\nISIC_2;nv;a;old\n", encoding="utf-8"
    )
    images = read_datasets([root]).images
    assert images["image_id"].tolist() == ["ISIC_1", "ISIC_2"]
    assert images["dx"].tolist() == ["mel", "nv"]
    assert set(images["dataset"]) == {"a"}


def test_a_clinic_may_have_one_class_only(tmp_path: Path) -> None:
    write_images(tmp_path / "ward", ["1", "2"], ".png")
    (tmp_path / "ward" / "labels.csv").write_text("image,label\n1.png,melanoma\n2.png,melanoma\n")
    assert read_datasets([tmp_path / "ward"]).images["dx"].tolist() == ["mel", "mel"]


@pytest.mark.parametrize(
    ("name", "source", "said"),
    [("HAM10000", "a", "holds another data set than HAM10000"), ("more", "a+b", "sources with a plus sign: a\\+b")],
)
def test_names_that_would_mislead_are_refused(tmp_path: Path, name: str, source: str, said: str) -> None:
    root = write_more(tmp_path / name, [{**row, "source": source} for row in MORE])
    with pytest.raises(DatasetError, match=said):
        read_datasets([root])
