"""`dermq-train fit`, `evaluate` and `export` on a synthetic data set, and the bundle that comes out on both engines."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from sklearn.metrics import roc_auc_score

from trainer.data.readers.ham10000 import COLUMNS, IMAGE_FOLDERS, METADATA_NAME
from worker.images.decode import decode
from worker.images.preprocess import Preprocessing
from worker.inference.bundle import Bundle, load_bundle
from worker.inference.engines import load_engine
from worker.inference.metrics import BundleMetrics, ClassCounts
from worker.inference.precision import Precision, supports
from worker.inference.reference import TOLERANCE, replay_reference
from worker.synthetic.archive import encode
from worker.synthetic.lesion import draw_lesion

LESIONS = 120
SIZE = 64

# Keras saves weights with `np.array(variable)`; TensorFlow's variables do not know the argument that NumPy 2 passes.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """HAM10000's layout with atypical lesions for melanomas and typical ones for nevi."""
    root = tmp_path_factory.mktemp("ham")
    rows = []
    for folder in IMAGE_FOLDERS:
        (root / folder).mkdir()
    for lesion in range(LESIONS):
        melanoma = lesion % 3 == 0
        name = f"ISIC_{lesion:04}"
        picture = draw_lesion(lesion, width=96, height=72, atypical=melanoma)
        (root / IMAGE_FOLDERS[lesion % 2] / f"{name}.jpg").write_bytes(encode(picture, ".jpg"))
        known = {"lesion_id": f"HAM_{lesion:04}", "image_id": name, "dx": "mel" if melanoma else "nv"}
        rows.append(dict.fromkeys(COLUMNS, "") | known)
    pd.DataFrame(rows).to_csv(root / METADATA_NAME, index=False)
    return root


@pytest.fixture(scope="module")
def run(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run after `fit` and `evaluate`."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    cache = folder.parent / "cache"
    quick = ["--size", str(SIZE), "--epochs", "6", "--batch-size", "8", "--warmup-epochs", "1", "--ema-momentum", "0.8"]
    _train(dataset, "fit", str(folder), "--cache", str(cache), *quick)
    _train(dataset, "evaluate", str(folder), "--remark", "The pictures are\nsynthetic.")
    return folder


@pytest.fixture(scope="module")
def bundle(dataset: Path, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The run's bundle."""
    target = tmp_path_factory.mktemp("models") / "synthetic"
    _train(dataset, "export", str(run), str(target), "--name", "synthetic", "--version", "7")
    return load_bundle(target)


def _train(dataset: Path, *arguments: str) -> Result:
    from trainer.cli import main

    done = CliRunner().invoke(main, [*arguments, "--dataset", str(dataset)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


def test_the_test_split_is_evaluated_and_the_access_logged(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    test = pd.read_csv(run / "test.csv")
    assert set(test["split"]) == {"test"}
    assert metrics["images"] == {"melanoma": int(test["label"].sum()), "nevus": int((1 - test["label"]).sum())}
    auroc = metrics["auroc"]
    # Classes that are perfectly separated have no interval.
    assert auroc["value"] == 1 if auroc["low"] is None else 0 <= auroc["low"] <= auroc["value"] <= auroc["high"] <= 1
    # Typical and atypical lesions differ so much that a network which learns at all separates them.
    assert metrics["auroc"]["value"] > 0.8
    assert (run / "test-access.log").read_text().count("evaluate") == 1


def test_the_report_of_the_run_is_complete_and_loads_nothing(run: Path) -> None:
    report = json.loads((run / "report.json").read_text())
    assert report["leakage"]["lesions"] == 0
    assert report["assessment"]["images"]["auroc"] == json.loads((run / "metrics.json").read_text())["auroc"]
    # Few melanoma lesions: only Youden's threshold is offered, and the others are refused with the reason.
    assert list(report["policies"]) == ["youden"]
    assert set(report["refused_policies"]) == {"sensitivity:0.95", "sensitivity:0.90", "sensitivity:0.85"}
    assert report["engine_parity"]["largest"] < 0.01
    assert {change["name"] for change in report["robustness"]["changes"]} >= {"hair", "ruler", "blur"}
    page = (run / "report.html").read_text()
    assert "Every missed melanoma" in page
    assert "The pictures are synthetic." in page
    assert report["remarks"] == ["The pictures are synthetic."]
    assert "http" not in re.sub(r'src="data:[^"]*"', "", page)
    assert str(run.parent) not in page


def test_other_data_than_the_runs_are_refused_before_the_test_split_is_accessed(
    dataset: Path, run: Path, tmp_path: Path
) -> None:
    from trainer.cli import main

    changed = tmp_path / "changed"
    shutil.copytree(dataset, changed)
    one, other = sorted(changed.rglob("*.jpg"))[:2]
    one.write_bytes(other.read_bytes())
    accesses = (run / "test-access.log").read_text()
    for command in (["evaluate", str(run)], ["export", str(run), str(tmp_path / "bundle"), "--version", "9"]):
        done = CliRunner().invoke(main, [*command, "--dataset", str(changed)])
        assert done.exit_code == 2
        assert "was begun with other data" in done.stderr
    assert (run / "test-access.log").read_text() == accesses
    assert not (tmp_path / "bundle").exists()


def test_robustness_is_measured_on_validation_images_without_the_test_split(dataset: Path, run: Path) -> None:
    accesses = (run / "test-access.log").read_text()
    done = _train(dataset, "robustness", str(run))
    found = json.loads((run / "robustness.json").read_text())
    validation = pd.read_csv(run / "validation.csv")
    assert found["images"] == {
        "melanoma": int(validation["label"].sum()),
        "nevus": int((1 - validation["label"]).sum()),
    }
    # Unchanged, the converted model gives what the thresholds were chosen on.
    assert found["policies"]["youden"]["sensitivity"]["value"] > 0.8
    assert re.search(r"^hair, number: 40 +\d\.\d{3} +\d\.\d{3} +\d\.\d{3}$", done.stdout, re.MULTILINE)
    assert len(found["changes"]) == 18
    for name, images in validation.groupby("dataset"):
        melanomas, nevi = (images["label"] == 1).sum(), (images["label"] == 0).sum()
        auc = f"AUROC {roc_auc_score(images['label'], images['probability']):.3f}" if melanomas and nevi else "no AUROC"
        assert re.search(rf"^{name} +{auc}, {melanomas} melanoma and {nevi} nevus images$", done.stdout, re.MULTILINE)
    assert (run / "test-access.log").read_text() == accesses


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Images from elsewhere, and the CSV of what they show."""
    clinic = tmp_path_factory.mktemp("elsewhere") / "clinic"
    clinic.mkdir()
    lines = ["image,label"]
    for number in range(40):
        picture = draw_lesion(1_000 + number, width=96, height=72, atypical=number % 2 == 0)
        (clinic / f"{number}.png").write_bytes(encode(picture, ".png"))
        lines.append(f"{number}.png,{'melanoma' if number % 2 == 0 else 'nevus'}")
    for number in range(40, 44):
        (clinic / f"{number}.png").write_bytes(encode(draw_lesion(1_000 + number, width=96, height=72), ".png"))
        lines.append(f"{number}.png,bcc")
    labels = clinic.parent / "labels.csv"
    labels.write_text("\n".join(lines))
    return clinic, labels


def test_images_of_another_clinic_leave_the_test_split_alone(
    dataset: Path, run: Path, clinic: tuple[Path, Path]
) -> None:
    accesses = (run / "test-access.log").read_text()
    folder, labels = clinic
    done = _train(dataset, "evaluate", str(run), "--external", str(folder), "--labels", str(labels))
    assert "AUROC on these images" in done.stdout
    report = json.loads((run / "external-clinic" / "report.json").read_text())
    assert report["external"]["images"] == {"melanoma": 20, "nevus": 20}
    assert report["assessment"]["images"]["auroc"]["value"] > 0.8
    assert report["recalibrated"]["folds"] == 5
    assert [(entry["diagnosis"], entry["images"]) for entry in report["other_diagnoses"]] == [("bcc", 4)]
    assert "4 images of other diagnoses, in a table of their own" in done.stdout
    assert report["engine_parity"]["images"] == 40
    assert report["engine_parity"]["largest"] < 0.01
    assert {change["name"] for change in report["robustness"]["changes"]} >= {"hair", "ruler", "blur"}
    assert (run / "test-access.log").read_text() == accesses


def test_a_bundle_is_evaluated_on_images_of_another_clinic_like_its_run(
    dataset: Path, run: Path, bundle: Bundle, clinic: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has the bundle alone must be able to measure it before relying on it."""
    folder, labels = clinic
    monkeypatch.chdir(tmp_path)
    held = sorted(bundle.folder.rglob("*"))
    for earlier in run.glob("external-clinic*"):
        earlier.chmod(0o755)
    whole = (run / "external-clinic" / "report.json").read_bytes()
    for subject in (run, bundle.folder):
        _train(
            dataset, "evaluate", str(subject), "--external", str(folder), "--labels", str(labels), "--skip-robustness"
        )
    assert sorted(bundle.folder.rglob("*")) == held
    assert (run / "external-clinic" / "report.json").read_bytes() == whole, "a quick report takes no whole one's place"
    ours_at = tmp_path / "external-clinic-without-robustness-synthetic-7"
    ours, theirs = (
        pd.read_csv(where / "scored.csv") for where in (ours_at, run / "external-clinic-without-robustness")
    )
    assert [int((ours["label"] == label).sum()) for label in (1, 0)] == [20, 20]
    assert ours["label"].isna().sum() == 4
    assert ours["probability"].to_numpy() == pytest.approx(theirs["probability"].to_numpy(), abs=TOLERANCE)
    report = json.loads((ours_at / "report.json").read_text())
    assert report["policies"]["youden"]["threshold"] == bundle.manifest.thresholds["youden"].threshold
    for report_folder in (ours_at, run / "external-clinic-without-robustness"):
        assert report_folder.stat().st_mode & 0o077 == 0, "it holds pictures of patients"
    assert report["engine_parity"]["largest"] < 0.01
    page = (ours_at / "report.html").read_text()
    assert "4 images of other diagnoses: only" in page
    assert page.count("Not done: left out with --skip-robustness") == 2
    assert f"Bundle synthetic 7 on images of {folder.name}" in page
    assert f"SHA-256 {bundle.sha256[:12]}." in page


def test_whoever_has_bundle_and_data_set_makes_the_cards_figures_anew(
    dataset: Path, run: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cache = str(tmp_path / "cache")
    held = sorted(bundle.folder.rglob("*"))
    done = _train(dataset, "evaluate", str(bundle.folder), "--skip-robustness", "--cache", cache)
    assert sorted(bundle.folder.rglob("*")) == held
    stated = bundle.manifest.metrics
    named = rf"The model card, with figures of the Keras model, has AUROC {stated.auroc.or_nan:.4f} \([+-]0\.0"
    assert re.search(named, done.stdout)
    target = tmp_path / "test-synthetic-7"
    assert target.stat().st_mode & 0o077 == 0, "it holds pictures and scores of patients"
    found = json.loads((target / "metrics.json").read_text())
    assert (found["images"], found["lesions"]) == (stated.images.model_dump(), stated.lesions.model_dump())
    assert found["auroc"]["value"] == pytest.approx(stated.auroc.or_nan, abs=0.01)
    ours, theirs = (pd.read_csv(where / "test.csv").set_index("image_id") for where in (target, run))
    assert ours["probability"].to_numpy() == pytest.approx(
        theirs.loc[ours.index, "probability"].to_numpy(), abs=TOLERANCE
    )
    report = json.loads((target / "report.json").read_text())
    assert report["policies"]["youden"]["threshold"] == bundle.manifest.thresholds["youden"].threshold
    assert report["engine_parity"]["largest"] < 0.01
    assert report["leakage"]["clean"]
    assert len(report["subject"]["test_accesses"]) == 1
    page = (target / "report.html").read_text()
    assert "Bundle synthetic 7 on the test split" in page
    assert "are of the bundle as workers run it" in page
    # Once more into the same folder, which then knows of two accesses.
    _train(dataset, "evaluate", str(bundle.folder), "--skip-robustness", "--cache", cache)
    assert len(json.loads((target / "report.json").read_text())["subject"]["test_accesses"]) == 2


def test_a_bundle_of_another_split_is_not_evaluated_on_this_one(
    dataset: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its test images may be among those that the bundle was trained on."""
    from trainer.cli import main

    monkeypatch.chdir(tmp_path)
    changed = tmp_path / "changed"
    shutil.copytree(dataset, changed)
    rows = pd.read_csv(changed / METADATA_NAME)
    # Other lesions, and so another draw.
    rows["lesion_id"] = "HAM_9" + rows["lesion_id"].str[-3:]
    rows.to_csv(changed / METADATA_NAME, index=False)
    done = CliRunner().invoke(
        main, ["evaluate", str(bundle.folder), "--dataset", str(changed), "--cache", str(tmp_path / "cache")]
    )
    assert done.exit_code == 2
    assert f"under the split {bundle.manifest.split_manifest_sha256[:12]}" in done.stderr
    assert "is evaluated as a run" in done.stderr
    assert not list(tmp_path.glob("test-*"))


def test_on_another_backend_a_bundle_is_refused_before_its_test_split_is_opened(
    dataset: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    from trainer.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(keras.config, "backend", lambda: "torch")
    done = CliRunner().invoke(main, ["evaluate", str(bundle.folder), "--dataset", str(dataset)])
    assert (done.exit_code, list(tmp_path.iterdir())) == (2, [])
    assert "KERAS_BACKEND is torch" in done.stderr


def test_a_bundle_of_some_lesions_is_evaluated_by_its_run(
    dataset: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The split of a run with `--limit` is that of all lesions, and its card is of some: no two figures would fit."""
    from trainer.cli import main
    from trainer.export.folder import seal

    monkeypatch.chdir(tmp_path)
    limited = tmp_path / "limited"
    shutil.copytree(bundle.folder, limited)
    (limited / "bundle.json").unlink()
    metrics = bundle.manifest.metrics.model_copy(update={"images": ClassCounts(melanoma=3, nevus=4)})
    seal(limited, bundle.manifest.model_copy(update={"metrics": metrics}))
    done = CliRunner().invoke(
        main, ["evaluate", str(limited), "--dataset", str(dataset), "--cache", str(tmp_path / "cache")]
    )
    assert done.exit_code == 2
    assert "are of 3 melanoma and 4 nevus images, and its test split has " in done.stderr
    assert not list(tmp_path.glob("test-*"))


def test_a_bundle_is_recalibrated_to_images_from_elsewhere(
    bundle: Bundle, clinic: tuple[Path, Path], tmp_path: Path
) -> None:
    """What it flags then is what its thresholds were chosen to flag, on the engine that a worker runs."""
    from trainer.cli import main

    folder, labels = clinic
    target = tmp_path / "place"
    arguments = ["recalibrate", str(bundle.folder), str(target), "--external", str(folder), "--labels", str(labels)]
    done = CliRunner().invoke(main, [*arguments, "--version", "1"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "Leaving out 4 images of other diagnoses" in done.stderr
    made = load_bundle(target)
    assert made.manifest.calibration != bundle.manifest.calibration
    engine = load_engine("openvino", made)
    replay = replay_reference(made, engine)
    worst, count = replay.largest_difference, replay.images
    assert (count, worst <= TOLERANCE) == (4, True)
    rows = pd.read_csv(labels).query("label != 'bcc'")
    inputs = np.stack([made.preprocessing(decode((folder / name).read_bytes())) for name in rows["image"]])
    probabilities = made.manifest.calibration.apply(engine.infer(inputs).probability)
    melanoma = (rows["label"] == "melanoma").to_numpy()
    refused = CliRunner().invoke(main, ["evaluate", str(target), "--external", str(folder), "--labels", str(labels)])
    assert "place 1 was recalibrated on 40 of 44 images" in refused.stderr
    for policy in made.manifest.thresholds.values():
        assert (probabilities >= policy.threshold)[melanoma].mean() == policy.sensitivity
        assert (probabilities < policy.threshold)[~melanoma].mean() == policy.specificity


def test_the_card_is_written_from_the_report(run: Path, tmp_path: Path) -> None:
    from trainer.cli import main

    done = CliRunner().invoke(main, ["card", str(run), "--out", str(tmp_path / "card.md")], catch_exceptions=False)
    assert done.exit_code == 0
    text = (tmp_path / "card.md").read_text()
    assert "## TRIPOD+AI" in text
    assert "ISIC_" not in text


def test_the_bundle_says_what_the_run_found(bundle: Bundle, run: Path) -> None:
    manifest = bundle.manifest
    assert (manifest.name, manifest.version, manifest.input.size) == ("synthetic", "7", SIZE)
    assert manifest.metrics == BundleMetrics.model_validate_json((run / "metrics.json").read_text())
    assert manifest.split_manifest_sha256 == json.loads((run / "split.json").read_text())["sha256"]
    assert manifest.training_images is not None
    assert len(set(bundle.read(manifest.training_images).decode().split())) == LESIONS
    card = (bundle.folder / "MODEL_CARD.md").read_text()
    assert f"{manifest.metrics.auroc.or_nan:.3f}" in card
    assert "Not a medical device" in card


@pytest.mark.parametrize("name", ["openvino", "tensorflow"])
def test_both_engines_give_what_the_keras_model_gave(bundle: Bundle, name: str) -> None:
    engine = load_engine(name, bundle)  # type: ignore[arg-type]
    replay = replay_reference(bundle, engine)
    worst, count = replay.largest_difference, replay.images
    assert count == 4
    assert worst <= TOLERANCE
    batch = np.stack([Preprocessing(size=SIZE)(draw_lesion(seed, width=96, height=72)) for seed in range(5)])
    inference = engine.infer(batch, features=True, maps_from=0.0)
    assert engine.infer(batch, maps_from=1.1).feature_maps == [None] * 5
    assert engine.infer(batch).features is None
    assert inference.probability.shape == (5,)
    assert inference.features is not None
    assert inference.features.shape == (5, 1280)
    maps = np.stack([each for each in inference.feature_maps if each is not None])
    assert maps.shape == (5, 2, 2, 1280)
    # The pooled features are the mean of the map: what an explanation relies on.
    assert inference.features == pytest.approx(maps.mean(axis=(1, 2)), abs=1e-2)
    alone = engine.infer(batch[2:3]).probability
    assert alone[0] == pytest.approx(inference.probability[2], abs=1e-6)


def test_a_report_of_other_thresholds_is_not_exported(dataset: Path, run: Path, tmp_path: Path) -> None:
    from trainer.cli import main

    other = Path(shutil.copytree(run, tmp_path / "other"))
    predicted = pd.read_csv(other / "validation.csv")
    predicted["probability"] **= 2
    predicted.to_csv(other / "validation.csv", index=False)
    command = ["export", str(other), str(tmp_path / "bundle"), "--version", "9", "--dataset", str(dataset)]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2
    assert "has another calibration or other thresholds than its validation.csv" in done.stderr
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("differences", "what"),
    # With half of the bits, with all of them, and of the reference.
    [((0.2, 0.2), "converted model's"), ((0.0, 0.0, 0.2), "rounded reference's")],
)
def test_a_conversion_that_changes_the_model_is_refused(
    dataset: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, differences: tuple[float], what: str
) -> None:
    import trainer.export.export

    measured = iter(differences)
    monkeypatch.setattr(trainer.export.export, "parity", lambda *_: next(measured))
    target = tmp_path / "bundle"
    with pytest.raises(trainer.export.export.ExportError, match=rf"{what} probability differs .* up to 0\.2000"):
        trainer.export.export.export([dataset], run, target, name="synthetic", version="1")
    assert not target.exists()
    assert list(tmp_path.iterdir()) == []


def test_weights_are_stored_whole_where_half_of_their_bits_are_too_few(
    dataset: Path, run: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import trainer.export.export

    measured, differences = trainer.export.export.parity, iter((0.2,))
    monkeypatch.setattr(trainer.export.export, "parity", lambda *given: next(differences, None) or measured(*given))
    whole = trainer.export.export.export([dataset], run, tmp_path / "bundle", name="synthetic", version="1")
    sizes = [(each.folder / "model.bin").stat().st_size for each in (whole, bundle)]
    assert sizes[0] == pytest.approx(2 * sizes[1], rel=0.02)


@pytest.fixture
def unevaluated(run: Path, tmp_path: Path) -> Path:
    """A copy of the run from before its evaluation."""
    copy = Path(shutil.copytree(run, tmp_path / "unevaluated"))
    for name in ("test-access.log", "metrics.json", "report.json", "report.html", "test.csv"):
        (copy / name).unlink()
    return copy


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_a_run_is_served_in_a_precision_with_thresholds_of_its_own(
    dataset: Path, unevaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    if not supports(precision):
        pytest.skip(f"this processor does not compute in {precision}")
    monkeypatch.setattr("trainer.metrics.precision_cost.MAX_AUROC_LOSS", 1.0)
    monkeypatch.setattr("trainer.metrics.precision_cost.MAX_SENSITIVITY_LOSS", 1.0)
    done = _train(dataset, "serve", str(unevaluated), precision)
    assert ("Against 32-bit floats" in done.output) == (precision != "float32")
    assert not (unevaluated / "test-access.log").exists()
    before, after = (pd.read_csv(unevaluated / name) for name in ("validation.csv", "validation-served.csv"))
    assert before["image_id"].equals(after["image_id"])
    assert not (before["probability"] == after["probability"]).all()
    _train(dataset, "evaluate", str(unevaluated), "--skip-robustness")
    target = tmp_path / "bundle"
    _train(dataset, "export", str(unevaluated), str(target), "--name", "synthetic", "--version", "8")
    bundle = load_bundle(target)
    manifest, engine = bundle.manifest, load_engine("openvino", bundle)
    assert manifest.precision == precision
    assert (manifest.precision_cost is None) == (precision == "float32")
    # The engine gives what the thresholds were chosen on, to the last bit, and so do its figures.
    validation = [path for name in after["image_id"][:8] for path in dataset.rglob(f"{name}.jpg")]
    inputs = np.stack([bundle.preprocessing.load(path.read_bytes()) for path in validation])
    assert engine.infer(inputs).probability.tolist() == after["probability"][:8].tolist()
    test = pd.read_csv(unevaluated / "test.csv")
    tested = [next(dataset.rglob(f"{name}.jpg")) for name in test["image_id"][:8]]
    inputs = np.stack([bundle.preprocessing.load(path.read_bytes()) for path in tested])
    assert engine.infer(inputs).probability.tolist() == test["raw_probability"][:8].tolist()
    assert replay_reference(bundle, engine).largest_difference == 0
    assert replay_reference(bundle, load_engine("tensorflow", bundle)).largest_difference <= TOLERANCE
    assert ("## Precision" in (target / "MODEL_CARD.md").read_text()) == (precision != "float32")
    assert ("FakeQuantize" in (target / "model.xml").read_text()) == (precision == "int8")


def test_a_precision_that_costs_too_much_is_refused(
    dataset: Path, unevaluated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer.cli import main

    monkeypatch.setattr("trainer.metrics.precision_cost.MAX_AUROC_LOSS", -1.0)
    done = CliRunner().invoke(main, ["serve", str(unevaluated), "int8", "--dataset", str(dataset)])
    assert done.exit_code == 2
    assert "int8 costs too much: the area under the ROC curve falls by" in done.stderr
    assert not (unevaluated / "served").exists()
    assert not (unevaluated / "served.json").exists()


def test_a_precision_is_not_chosen_after_the_test_split_was_accessed(dataset: Path, run: Path) -> None:
    from trainer.cli import main

    done = CliRunner().invoke(main, ["serve", str(run), "float32", "--dataset", str(dataset)])
    assert done.exit_code == 2
    assert "its test split was accessed" in done.stderr


def test_a_bundle_is_replaced_only_when_that_is_asked_for(dataset: Path, run: Path, tmp_path: Path) -> None:
    from trainer.cli import main

    target = tmp_path / "mine"
    arguments = ["export", str(run), str(target), "--version"]
    _train(dataset, *arguments, "1")
    refused = CliRunner().invoke(main, [*arguments, "2", "--dataset", str(dataset)])
    assert (refused.exit_code, "--replace" in refused.output) == (2, True)
    assert (load_bundle(target).manifest.name, load_bundle(target).manifest.version) == ("mine", "1")
    _train(dataset, *arguments, "2", "--replace")
    assert load_bundle(target).manifest.version == "2"
