"""Images from elsewhere: what is refused and how, and an honest recalibration."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from tests.synthetic_bundle import FILES, METRICS, make_bundle
from tests.unit.trainer.synthetic_run import write_description
from trainer.cli import main
from trainer.cli.printing import print_external
from trainer.data.external_labels import read_external, refuse_own, refuse_training_images, without_label
from trainer.data.load_images import load_images
from trainer.data.splits import manifest_sha256, read_manifest, write_manifest
from trainer.errors import DatasetError, MissingError, SplitError
from trainer.evaluation.of_external import external_folder
from trainer.metrics.cross_fitting import cross_fit
from trainer.metrics.figures import Assessment, ExternalImages, LevelFigures, OtherDiagnosis, Refusal
from trainer.report.schema import Report
from trainer.run_records import TrainingData, data_sha256
from trainer.thresholds.policies import fit_policies
from worker.images.preprocess import Preprocessing
from worker.inference.bundle import TRAINING_IMAGE_DIGITS, load_bundle, sha256_of
from worker.inference.metrics import ClassCounts, Estimate


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = tmp_path / "clinic"
    (images / "sub").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg", "sub/c.png"):
        (images / name).write_bytes(name.encode())
    return images


def labels(folder: Path, text: str) -> Path:
    path = folder.parent / "labels.csv"
    path.write_text(text)
    return path


def refusal(folder: Path, text: str) -> str:
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        read_external(folder, labels(folder, text))
    message = str(caught.value)
    assert message.startswith("labels.csv ") or "labels.csv" in message
    return message


def test_words_and_numbers_are_labels_and_a_lesion_is_an_image_unless_named(folder: Path) -> None:
    rows = read_external(folder, labels(folder, "image,label\na.jpg,Melanoma\nb.jpg, 0\nsub/c.png,naevus\n"))
    assert rows["dx"].tolist() == ["mel", "nv", "nv"]
    assert rows["lesion_id"].tolist() == ["a.jpg", "b.jpg", "sub/c.png"]
    assert Path(rows["path"][2]) == folder / "sub" / "c.png"


def test_optional_columns_are_taken_under_our_names(folder: Path) -> None:
    text = "image,label,lesion_id,age,sex,site\na.jpg,1,7,50,male,back\nb.jpg,0,8,old,,face\n"
    rows = read_external(folder, labels(folder, text))
    assert rows["lesion_id"].tolist() == ["7", "8"]
    assert rows["age"].fillna(-1).tolist() == [50, -1]
    assert rows["localization"].tolist() == ["back", "face"]
    assert rows["age_set_aside"].tolist() == ["", "old"]


def test_an_age_that_no_person_has_is_not_known_and_counted(folder: Path) -> None:
    """A year of birth in the column of ages ended the whole evaluation in a traceback."""
    rows = read_external(folder, labels(folder, "image,label,age\na.jpg,1,1975\nb.jpg,0,-3\nsub/c.png,0,\n"))
    assert rows["age"].isna().all()
    assert rows["age_set_aside"].tolist() == ["1975", "-3", ""]


def test_a_blank_beside_a_lesion_id_makes_no_second_lesion(folder: Path) -> None:
    rows = read_external(folder, labels(folder, "image,label,lesion_id\na.jpg,1,7 \nb.jpg,0,  \nsub/c.png,1, 7\n"))
    assert rows["lesion_id"].tolist() == ["7", "b.jpg", "7"]
    assert rows["lesion_given"].tolist() == [True, False, True]


def test_the_runs_own_images_are_no_images_from_elsewhere(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    sides = {"a": "train", "c": "test", "z": "test"}
    rows = pd.DataFrame({"image_id": list(sides), "lesion_id": list(sides), "dx": "nv", "split": list(sides.values())})
    rows["sha256"] = "0" * 64
    write_manifest(rows, run, 1)
    write_description(run, data=TrainingData(images=3, sha256=data_sha256(read_manifest(run))))
    images = read_external(folder, labels(folder, "image,label\na.jpg,1\nb.jpg,0\nsub/c.png,0\n"))
    with pytest.raises(ValueError, match=r"2 of 3 images are .*: a\.jpg \(train\), sub/c\.png \(test\)\. Remove"):
        refuse_own(images, run)
    refuse_own(images[images["image_id"] == "b.jpg"], run)


def test_a_run_knows_its_images_under_other_names_but_not_those_that_it_set_aside(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("ISIC_2.jpg", "ISIC_4.jpg", "ISIC_6.jpg"):
        (folder / name).write_bytes(name.encode())
    manifest = (
        ("ISIC_1", "HAM_1", "validation", sha256_of(folder / "a.jpg")),
        ("ISIC_2", "HAM_2", "unused", sha256_of(folder / "ISIC_2.jpg")),
        # Set aside, but another image of the lesion was not, or a near-duplicate of it.
        ("ISIC_4", "HAM_1", "unused", "0" * 64),
        ("ISIC_6", "HAM_6", "unused", "1" * 64),
        ("ISIC_7", "HAM_7", "train", "2" * 64),
    )
    rows = pd.DataFrame(manifest, columns=["image_id", "lesion_id", "split", "sha256"])
    write_manifest(rows.assign(dx="nv", group=["1", "2", "1", "6", "6"]), run, 1, near_duplicates=10)
    write_description(run, data=TrainingData(images=5, sha256=data_sha256(read_manifest(run))))
    assert read_manifest(run)["sha256"].tolist() == [row[3] for row in manifest]
    names = ("a.jpg", "ISIC_2.jpg", "ISIC_4.jpg", "ISIC_6.jpg", "b.jpg")
    images = read_external(folder, labels(folder, "image,label\n" + ",1\n".join(names) + ",0\n"))
    own = r"a\.jpg \(ISIC_1, validation\), ISIC_4\.jpg \(set aside, but not its lesion\), ISIC_6\.jpg \(set aside"
    with pytest.raises(ValueError, match=rf"3 of 5 images .*: {own}, but not its lesion\)\. Remove"):
        refuse_own(images, run)
    refuse_own(images[images["image_id"].isin(("ISIC_2.jpg", "b.jpg"))], run)


def test_hashes_that_were_exchanged_are_refused(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    rows = pd.DataFrame({"image_id": ["ISIC_1"], "lesion_id": ["HAM_1"], "dx": ["nv"], "split": ["train"]})
    digest = write_manifest(rows.assign(sha256="0" * 64), run, 1)
    # The manifest's own SHA-256 is that of the sides alone.
    assert digest == manifest_sha256(rows)
    write_description(run, data=TrainingData(images=1, sha256=data_sha256(read_manifest(run))))
    images = read_external(folder, labels(folder, "image,label\na.jpg,1\nb.jpg,0\n"))
    refuse_own(images, run)
    (run / "split.csv").write_text((run / "split.csv").read_text().replace("0" * 64, "1" * 64))
    with pytest.raises(SplitError, match="file hashes"):
        refuse_own(images, run)


def test_a_bundle_knows_the_names_of_ham10000_and_its_images_under_any_name(folder: Path, tmp_path: Path) -> None:
    for name in ("ISIC_0024306.jpg", "ISIC_0034321.jpg"):
        (folder / name).write_bytes(name.encode())
    images = read_external(folder, labels(folder, "image,label\nISIC_0024306.jpg,1\nISIC_0034321.jpg,0\na.jpg,0\n"))
    with pytest.raises(ValueError, match=r"1 of 3 images are .* synthetic 1 was made from: ISIC_0024306\.jpg\. Remove"):
        refuse_training_images(images, load_bundle(make_bundle(tmp_path / "older")))
    listed = tmp_path / "listed"
    listed.mkdir()
    digest = sha256_of(folder / "a.jpg")
    (listed / "training-images.txt").write_text(f"{'0' * TRAINING_IMAGE_DIGITS}\n{digest[:TRAINING_IMAGE_DIGITS]}\n")
    files = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    files["training-images.txt"] = sha256_of(listed / "training-images.txt")
    bundle = load_bundle(make_bundle(listed, training_images="training-images.txt", files=files))
    with pytest.raises(ValueError, match=r"2 of 3 images .*: ISIC_0024306\.jpg, a\.jpg\. Remove"):
        refuse_training_images(images, bundle)
    refuse_training_images(images[images["image_id"] == "ISIC_0034321.jpg"], bundle)


def test_a_manifest_with_a_column_of_labels_will_do(folder: Path) -> None:
    text = "path,lesion_id,patient_ref,label\na.jpg,7,P1,1\nsub/c.png,8,P2,0\n"
    rows = read_external(folder, labels(folder, text))
    assert rows["image_id"].tolist() == ["a.jpg", "sub/c.png"]
    # With a column of either name, `image` it is.
    rows = read_external(folder, labels(folder, "path,image,label\nx,a.jpg,1\ny,b.jpg,0\n"))
    assert rows["image_id"].tolist() == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators_and_capitals_are_read(folder: Path, separator: str) -> None:
    """A spreadsheet program writes what its country writes."""
    text = "\ufeffImage,Label,Lesion_ID\na.jpg,1,7\nb.jpg,0,8\n".replace(",", separator)
    rows = read_external(folder, labels(folder, text))
    assert rows["lesion_id"].tolist() == ["7", "8"]


def test_labels_in_another_encoding_say_how_to_save_them(folder: Path) -> None:
    path = folder.parent / "labels.csv"
    path.write_bytes("image,label\nmüller.jpg,1\n".encode("latin-1"))
    with pytest.raises(ValueError, match='as "CSV UTF-8"'):
        read_external(folder, path)


def test_every_image_that_cannot_be_read_is_named_at_once(folder: Path) -> None:
    with pytest.raises(DatasetError, match=r"^2 of 2 images cannot be used\. a\.jpg .* b\.jpg "):
        load_images([folder / "a.jpg", folder / "b.jpg"], Preprocessing(size=32))


def test_each_bundle_has_its_own_report_on_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one, other = make_bundle(tmp_path / "one"), make_bundle(tmp_path / "other", metrics={**METRICS, "split": "other"})
    names = []
    for bundle in (one, other, one):
        target = external_folder(bundle, load_bundle(bundle), tmp_path / "clinic", labels(tmp_path / "clinic", "one"))
        assert target.stat().st_mode & 0o777 == 0o700
        names.append(target.relative_to(tmp_path).name)
    assert names == ["external-clinic-synthetic-1", "external-clinic-synthetic-1-2", "external-clinic-synthetic-1"]


def test_a_bundle_without_images_to_evaluate_it_on_says_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DERMQ_HAM10000", raising=False)
    result = CliRunner().invoke(main, ["evaluate", str(make_bundle(tmp_path))])
    assert result.exit_code == 2
    assert "the folder of HAM10000. For other images name --external FOLDER and --labels CSV" in result.stderr


def test_a_bundle_is_compared_with_no_runs(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        main,
        ["evaluate", str(make_bundle(tmp_path)), "--dataset", "x", "--seed-run", "runs/a", "--left-out-run", "runs/b"],
    )
    assert result.exit_code == 2
    assert "--seed-run and --left-out-run compares a run with others" in result.stderr


def test_two_folders_of_one_name_have_a_report_each(tmp_path: Path) -> None:
    first, second = tmp_path / "vienna" / "images", tmp_path / "queensland" / "images"
    targets = []
    for folder, text in ((first, "one"), (second, "one"), (first, "one"), (first, "other")):
        folder.parent.mkdir(exist_ok=True)
        target = external_folder(tmp_path, None, folder, labels(folder, text))
        targets.append(target.name)
    # Other labels of the same images are another report: the first stays.
    assert targets == ["external-images", "external-images-2", "external-images", "external-images-3"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,label\na.jpg,1\n", "has no column image"),
        ("image,diagnosis\na.jpg,1\n", "has no column label"),
        ("", "cannot be read as a table"),
        ("image,label\na.jpg,1,\nb.jpg,0,\n", "more fields than the first line has names"),
        ("image,label\na.jpg,scc\nb.jpg,0\n", "'scc'"),
        ("image,label\na.jpg,1\nb.jpg,bcc\n", "1 melanoma and 0 nevus images"),
        ("image,label\na.jpg,\nb.jpg,0\n", "has no label in row 1, counted"),
        ("image,label\na.jpg,1\n,\n,0\n", "has no image in row 3, counted"),
        ("image,label,label\na.jpg,1,0\nb.jpg,0,1\n", "two columns named label"),
        ("PK\x03\x04image", "is a workbook"),
        ("\0image,label\n", "is a binary file"),
        ("image,label\na.jpg,1\nmissing.jpg,0\n", "1 of 2 images of labels.csv are not in"),
        ("image,label\na.jpg,1\n../labels.csv,0\n", "../labels.csv"),
        ("image,label\na.jpg,1\nsub\\c.png,0\n", "and / between folders"),
        (f"image,label\na.jpg,1\n{'b' * 300}.jpg,0\n", "1 of 2 images of labels.csv are not in"),
        ("image,label\na.jpg,1\na.jpg,0\n", "lists images twice: a.jpg"),
        ("image,label\na.jpg,1\n./a.jpg,0\n", "copies of the same file: ./a.jpg = a.jpg."),
        ("image,label,Site,site\na.jpg,1,x,y\nb.jpg,0,x,y\n", "two columns named site"),
        ("image,label\na.jpg,1\nb.jpg,1\n", "2 melanoma and 0 nevus images"),
        ("image,label,lesion_id\na.jpg,1,7\nb.jpg,0,7\n", "lesions with two labels: 7"),
    ],
)
def test_bad_labels_are_refused_with_what_was_received_and_expected(folder: Path, text: str, said: str) -> None:
    assert said in refusal(folder, text)


def test_copies_are_named_with_what_they_are_copies_of_and_empty_files_are_none(folder: Path) -> None:
    for name, content in (("d.jpg", b"d"), ("e.jpg", b""), ("f.jpg", b"d"), ("g.jpg", b"")):
        (folder / name).write_bytes(content)
    rows = "".join(f"{name}.jpg,{number % 2}\n" for number, name in enumerate("adefg"))
    assert "copies of the same file: d.jpg = f.jpg. Name" in refusal(folder, f"image,label\n{rows}")


def test_rows_of_separators_alone_are_none(folder: Path) -> None:
    rows = read_external(folder, labels(folder, "image,label,site\na.jpg,1,back\n,,\nb.jpg,0,\n,,\n"))
    assert rows["image_id"].tolist() == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("mark", ["-", "Unknown", "n/a", "?", "NA"])
def test_a_mark_for_an_unknown_lesion_is_no_lesion(folder: Path, mark: str) -> None:
    text = f"image,label,lesion_id\na.jpg,1,{mark}\nb.jpg,0,{mark}\nsub/c.png,0,7\n"
    rows = read_external(folder, labels(folder, text))
    assert rows["lesion_id"].tolist() == ["a.jpg", "b.jpg", "7"]
    assert rows["lesion_given"].tolist() == [False, False, True]


def test_images_without_a_label_are_counted(folder: Path) -> None:
    (folder / "sub" / "notes.txt").write_text("no image")
    rows = read_external(folder, labels(folder, "image,label\na.jpg,1\nb.jpg,0\n"))
    assert without_label(folder, rows) == 1
    rows = read_external(folder, labels(folder, "image,label\na.jpg,mel\n./b.jpg,nv\nsub/c.png,NV\n"))
    assert without_label(folder, rows) == 0


def test_the_evaluated_images_and_labels_that_look_swapped_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    given = ExternalImages(
        name="clinic",
        images=ClassCounts(melanoma=1, nevus=1_200),
        lesions=ClassCounts(melanoma=1, nevus=900),
        other_diagnoses=3,
        lesion_ids_missing=4,
        without_label=235,
        ages_set_aside=("forty",),
    )
    other = OtherDiagnosis(
        diagnosis="bcc",
        images=3,
        lesions=3,
        quartiles=(0.1, 0.2, 0.3),
        policies={"youden": 2, "sensitivity:0.95": 3},
    )

    def told(auroc: Estimate, given: ExternalImages = given) -> tuple[str, str]:
        level = LevelFigures(auroc=auroc, auprc=auroc, specificity_at_95_sensitivity=auroc, policies={})
        print_external(
            Report.model_construct(
                external=given,
                other_diagnoses=(other,),
                robustness=None,
                assessment=Assessment.model_construct(images=level),
            )
        )
        return capsys.readouterr()

    out, err = told(Estimate(value=0.0484, low=0.0279, high=0.0716))
    assert out.startswith(
        "1 melanoma image of 1 lesion and 1,200 nevus images of 900 lesions; 3 images of other diagnoses, in a table "
        "of "
        "their own; 235 images left out, without a label; 4 images without a lesion_id, each counted as a lesion; 1 "
        "impossible age counted as unknown\nAUROC on these images 0.0484"
    )
    assert "WARNING: The area under the ROC curve is 0.048 (0.028 to 0.072), far below one half" in err
    assert "WARNING: Few lesions: 1 melanoma lesion, where at least 19 of each class are needed" in err
    assert "bcc: of 3 images flagged 2 at youden, 3 at sensitivity:0.95" in out
    enough = given.model_copy(update={"lesions": ClassCounts(melanoma=19, nevus=19)})
    out, err = told(Estimate(value=0.0), enough)
    assert "AUROC on these images 0.0000 (no interval: too few lesions)" in out
    assert "are swapped in the labels" in err
    assert told(Estimate(value=0.45, low=0.3, high=0.6), enough)[1] == ""


def test_a_mistyped_name_is_neither_run_nor_bundle(folder: Path) -> None:
    given = labels(folder, "image,label\na.jpg,1\nb.jpg,0\n")
    result = CliRunner().invoke(main, ["evaluate", "nope", "--external", str(folder), "--labels", str(given)])
    assert result.exit_code == 2
    assert "nope does not exist. Name the folder of a run or of a bundle" in result.stderr
    result = CliRunner().invoke(main, ["evaluate", str(folder), "--dataset", "x"])
    assert result.exit_code == 2
    assert f"{folder} is neither a run (no config.json) nor a bundle (no bundle.json)" in result.stderr


def test_labels_are_checked_before_tensorflow_is_loaded() -> None:
    script = "import sys, trainer.evaluation.of_external; print({'keras', 'tensorflow'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_among_many_nevi_the_engines_are_compared_on_every_melanoma() -> None:
    """On a draw without any there is no area under the curve, and the report ended in an error."""
    from trainer.evaluation.robustness import draw_sample

    rows = pd.DataFrame({"label": [1] * 3 + [0] * 4_000})
    drawn = draw_sample(rows)
    assert drawn["label"].value_counts().to_dict() == {0: 225, 1: 3}
    assert drawn.equals(draw_sample(rows))


def test_a_missing_folder_and_missing_labels_are_named(folder: Path) -> None:
    with pytest.raises(MissingError, match="nowhere"):
        read_external(folder.parent / "nowhere", labels(folder, "image,label\n"))
    with pytest.raises(MissingError, match=r"none\.csv"):
        read_external(folder, folder / "none.csv")


def test_on_the_command_line_an_error_is_a_sentence(folder: Path, tmp_path: Path) -> None:
    path = labels(folder, "image,label\na.jpg,1\nb.jpg,1\n")
    (tmp_path / "config.json").write_text("{}")
    arguments = ["evaluate", str(tmp_path), "--external", str(folder), "--labels", str(path)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("dermq-train: labels.csv has 2 melanoma and 0 nevus images.")


@pytest.mark.parametrize("missing", [["--external", "x"], ["--labels", "x"]])
def test_folder_and_labels_belong_together(missing: list[str]) -> None:
    result = CliRunner().invoke(main, ["evaluate", "run", *missing])
    assert result.exit_code == 2
    assert "belong together" in result.stderr


def test_what_belongs_to_the_test_split_is_no_option_of_images_from_elsewhere(folder: Path) -> None:
    given = labels(folder, "image,label\na.jpg,1\nb.jpg,0\n")
    arguments = ["evaluate", "run", "--external", str(folder), "--labels", str(given)]
    for extra in (["--seed-run", "runs/a"], ["--bundle", "b"], ["--remark", "Told."]):
        result = CliRunner().invoke(main, [*arguments, *extra])
        assert result.exit_code == 2
        assert f"{extra[0]} belongs to the report on the test split" in result.stderr


def test_without_external_images_the_data_set_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DERMQ_HAM10000", raising=False)
    (tmp_path / "config.json").write_text("{}")
    result = CliRunner().invoke(main, ["evaluate", str(tmp_path)])
    assert result.exit_code == 2
    assert "DERMQ_HAM10000" in result.stderr


def shifted(seed: int, informative: bool = True) -> pd.DataFrame:
    """A clinic whose scores are too low: 200 lesions of two like images."""
    chance = np.random.default_rng(seed)
    labels = np.repeat(np.repeat([1, 0], (60, 140)), 2)
    middle = np.where(labels == 1, -1.0, -4.0) if informative else np.full(len(labels), -2.5)
    odds = middle + np.repeat(chance.normal(0, 1.2, 200), 2) + chance.normal(0, 0.05, 400)
    return pd.DataFrame(
        {
            "lesion_id": np.repeat([f"L{number:03}" for number in range(200)], 2),
            "label": labels,
            "raw_probability": 1 / (1 + np.exp(-odds)),
        }
    )


def test_recalibration_brings_the_slope_near_one_and_the_mean_to_the_share() -> None:
    found = cross_fit(shifted(1))
    assert found.folds == 5
    measures = found.calibration
    assert measures.mean_predicted == pytest.approx(0.3, abs=0.02)
    assert measures.slope.value == pytest.approx(1, abs=0.2)
    assert abs(measures.intercept.value) < 0.15
    assert 0.75 < found.policies["youden"].sensitivity.value <= 1
    assert len(found.policies["youden"].thresholds) == 5
    # 48 lesions in the fitting parts cannot prove 95%.
    assert "sensitivity:0.95" in found.refused


@pytest.mark.slow
def test_a_recalibration_of_noise_does_not_flatter_itself() -> None:
    """Fitted and evaluated on the same images, Youden's J is above 0 on noise; cross-fitted it is about 0."""
    crossed, apparent = [], []
    # Of the first 24 those whose noise can be fitted in each fold: the others rank melanomas below nevi in one.
    for seed in (2, 12, 13, 14, 16, 18, 21):
        rows = shifted(seed, informative=False)
        youden = cross_fit(rows).policies["youden"]
        crossed.append(youden.sensitivity.value + youden.specificity.value - 1)
        labels, raw = rows["label"].to_numpy(), rows["raw_probability"].to_numpy()
        fitted = fit_policies(labels, raw, rows["lesion_id"].to_numpy(object))[1].thresholds["youden"]
        apparent.append(fitted.sensitivity + fitted.specificity - 1)
    assert np.mean(apparent) > 0.1
    assert abs(np.mean(crossed)) < 0.05


def test_too_few_lesions_are_not_recalibrated() -> None:
    rows = pd.DataFrame({"lesion_id": ["a", "b", "c"], "label": [1, 0, 0], "raw_probability": [0.9, 0.2, 0.3]})
    assert isinstance(cross_fit(rows), Refusal)
