"""A run on all seven diagnoses from `dermq-train fit` to a bundle that both engines answer for."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tests.unit.trainer.synthetic_ham10000 import write_dataset
from trainer.data.diagnoses import DIAGNOSES, MALIGNANT
from worker.images.preprocess import Preprocessing
from worker.inference.bundle import load_bundle
from worker.inference.engines import load_engine
from worker.inference.reference import TOLERANCE, replay_reference
from worker.synthetic.archive import encode
from worker.synthetic.lesion import draw_lesion

SIZE = 64

# Keras saves weights with `np.array(variable)`; TensorFlow's variables do not know the argument that NumPy 2 passes.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def train(dataset: Path, *arguments: object) -> str:
    from trainer.cli import main

    done = CliRunner().invoke(main, [*map(str, arguments), "--dataset", str(dataset)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_seven_diagnoses_from_images_to_a_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "HAM10000").mkdir()
    dataset = write_dataset(tmp_path / "HAM10000", melanomas=24, nevi=36, others=8, width=96, height=72)
    run, target = tmp_path / "run", tmp_path / "bundle"
    recipe = ("--classes", "seven", "--samples-per-epoch", "80")
    quick = ("--size", SIZE, "--epochs", "2", "--batch-size", "16", "--warmup-epochs", "1", "--ema-momentum", "0.5")
    train(dataset, "fit", run, "--cache", tmp_path / "cache", *recipe, *quick)
    train(dataset, "evaluate", run)
    train(dataset, "export", run, target, "--version", "1")
    # It teaches a run of two classes and of another size what it makes of each image.
    taught = ("--teachers", run, "--mixup", "1")
    small = ("--size", "48", "--epochs", "1")
    train(dataset, "fit", tmp_path / "student", "--cache", tmp_path / "cache", *taught, *small)
    recorded = json.loads((tmp_path / "student" / "config.json").read_text())["teachers"]
    assert [name.split(" (SHA-256 ")[0] for name in recorded] == ["run"]

    report = json.loads((run / "report.json").read_text())
    assert [entry["diagnosis"] for entry in report["seven_classes"]["diagnoses"]] == list(DIAGNOSES)
    assert report["flow"]["training"]["bcc"]["images"] > 0
    bundle = load_bundle(target)
    assert (bundle.manifest.classes, bundle.manifest.malignant) == (DIAGNOSES, MALIGNANT)
    card = (target / "MODEL_CARD.md").read_text()
    assert "softmax of the seven diagnoses" in card
    assert (
        "2 epochs of 80 images, in which a diagnosis is drawn in proportion to its number of images to the power 0.5"
        in card
    )
    assert "Trained on the other diagnoses of the training side too" in card

    picture = Preprocessing(size=SIZE)(draw_lesion(5, width=96, height=72))[None]
    answers = [load_engine(name, bundle).infer(picture) for name in ("openvino", "tensorflow")]
    for engine, answer in zip(("openvino", "tensorflow"), answers, strict=True):
        assert replay_reference(bundle, load_engine(engine, bundle)).largest_difference <= TOLERANCE  # type: ignore[arg-type]
        classes = answer.class_probabilities
        assert classes is not None
        mel, nv = (classes[0, DIAGNOSES.index(dx)] for dx in ("mel", "nv"))
        assert answer.probability[0] == pytest.approx(mel / (mel + nv), abs=1e-4)
    assert np.abs(answers[0].class_probabilities - answers[1].class_probabilities).max() < 0.005

    # Evaluated from the bundle alone, the seven are separated as well as by the run.
    monkeypatch.chdir(tmp_path)
    train(dataset, "evaluate", target)
    reports = [json.loads((where / "report.json").read_text()) for where in (run, tmp_path / "test-bundle-1")]
    found = [report["seven_classes"]["balanced_accuracy"]["value"] for report in reports]
    assert found[0] == pytest.approx(found[1], abs=0.05)

    # And on images from elsewhere.
    (tmp_path / "clinic").mkdir()
    lines = ["image,label"]
    for number, dx in enumerate(("mel", "nv") * 8 + DIAGNOSES):
        picture = draw_lesion(500 + number, width=96, height=72, atypical=dx == "mel")
        (tmp_path / "clinic" / f"{number}.png").write_bytes(encode(picture, ".png"))
        lines.append(f"{number}.png,{dx}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    told = train(dataset, "evaluate", target, "--external", tmp_path / "clinic", "--labels", tmp_path / "labels.csv")
    assert "9 melanoma images of 9 lesions and 9 nevus images of 9 lesions; 5 images" in told
    report = json.loads((tmp_path / "external-clinic-bundle-1" / "report.json").read_text())
    assert [entry["images"] for entry in report["seven_classes"]["diagnoses"]] == [1, 1, 1, 1, 9, 9, 1]
    page = (tmp_path / "external-clinic-bundle-1" / "report.html").read_text()
    assert "Each image is given the diagnosis" in page
    assert "test image" not in page
