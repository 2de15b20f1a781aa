"""From folds to a bundle: a model trained on everything outside test, with thresholds by runs that left a fold out."""

import json
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from tests.unit.trainer.synthetic_ham10000 import write_dataset
from worker.inference.bundle import load_bundle
from worker.inference.metrics import FoldsCrossFit

# Keras saves weights with `np.array(variable)`; TensorFlow's variables do not know the argument that NumPy 2 passes.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

FOLDS = ("1/2", "2/2")


def _train(*arguments: str) -> Result:
    from trainer.cli import main

    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The current folder of every test here, with the data set in it."""
    found = tmp_path_factory.mktemp("crossfit")
    (found / "ham").mkdir()
    write_dataset(found / "ham", melanomas=30, nevi=50)
    return found


def test_folds_become_a_bundle_that_says_what_they_gave(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    monkeypatch.setenv("DERMQ_HAM10000", "ham")
    settings = {"size": 64, "epochs": 5, "batch-size": 8, "warmup-epochs": 1, "ema-momentum": 0.8}
    quick = [*(f"--{name}={value}" for name, value in settings.items()), "--checkpoint=last", "--cache=cache"]
    for number, fold in enumerate(FOLDS):
        told = _train("fit", f"fold-{number}", "--fold", fold, *quick).stdout.splitlines()[-1]
        assert f"on the held-out fold {fold}. When every fold and" in told
        assert "evaluate" not in told, "its test split is not to be accessed"
    done = _train("fit", "whole", "--fold", "all", *quick)
    assert done.stdout.splitlines()[-1] == "Trained without validation images. Next: dermq-train crossfit whole FOLD..."
    assert "AUC" not in done.stderr
    told = _train("crossfit", "whole", "fold-0", "fold-1").stdout
    assert "fold 1/2 (fold-0): AUROC" in told
    assert "youden, cross-fitted: sensitivity" in told
    assert told.splitlines()[-1] == "Next: dermq-train evaluate whole"

    _train("evaluate", "whole", "--skip-robustness")
    report = json.loads(Path("whole/report.json").read_text())
    assert report["leakage"]["clean"]
    assert "validation" not in report["flow"]["splits"]
    assert report["crossfit"]["counts"]["lesions"]["melanoma"] == report["flow"]["splits"]["train"]["mel"]["lesions"]
    page = Path("whole/report.html").read_text()
    assert "On the lesions outside test, cross-fitted" in page
    assert "fitted on out-of-fold predictions" in page
    assert "predictions of 2 other runs of the same recipe" in page

    _train("export", "whole", "bundle", "--version", "1")
    bundle = load_bundle(Path("bundle"))
    assert bundle.manifest.metrics.crossfit == FoldsCrossFit.model_validate(report["crossfit"])
    assert bundle.manifest.out_of_distribution is not None
    predictions = pd.read_csv("whole/validation.csv")
    assert bundle.manifest.thresholds["youden"].by_lesion is not None
    lesions = predictions.loc[predictions["label"] == 1, "lesion_id"].nunique()
    assert bundle.manifest.thresholds["youden"].by_lesion.lesions == lesions
    card = Path("bundle/MODEL_CARD.md").read_text()
    assert "each by that one of 2 other runs of this recipe that was not trained on it" in card
    assert "Split by lesion, 15% in test, all of the rest in training" in card
    assert "| Policy, cross-fitted |" in card

    # Whoever has bundle and data set finds its split, which is not that of the defaults.
    _train("evaluate", "bundle", "--skip-robustness")
    anew = json.loads(Path("test-bundle-1/report.json").read_text())
    assert anew["crossfit"] == report["crossfit"]
    assert anew["assessment"]["counts"] == report["assessment"]["counts"]
    assert "fitted on out-of-fold predictions" in Path("test-bundle-1/report.html").read_text()

    from trainer.cli import main

    refused = CliRunner().invoke(main, ["robustness", "whole"])
    assert refused.exit_code == 2
    assert "Name a run that has some, such as one of its folds" in refused.stderr
