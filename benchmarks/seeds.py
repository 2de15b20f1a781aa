"""What chance does to a model that was trained on all images outside test: its recipe with other seeds, on test.

    DERMQ_HAM10000=/data/HAM10000 python benchmarks/seeds.py BUNDLE RUN [RUN...]

The runs are of the bundle's recipe, finished by `dermq-train fit --fold all`; a bundle does not tell its recipe, so
they are compared with each other alone. Calibration and thresholds are the bundle's: `dermq-train crossfit` chooses
them on the predictions of the folds, and would give every run on all the same. Each opening of the test split is
logged in its run folder; nothing may be chosen by what is printed.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from trainer.data.diagnoses import melanoma_or_nevus
from trainer.data.resized_cache import load_inputs
from trainer.data.run_images import read_images_of
from trainer.data.splits import TEST, manifest_sha256, read_manifest
from trainer.data.test_access_log import log_test_access
from trainer.metrics.assess import by_lesion
from trainer.metrics.discrimination import auroc
from trainer.metrics.seeds import require_other_seeds
from trainer.networks.predict import predict
from trainer.run_folder import RunFolder
from trainer.thresholds.bootstrap import LesionBootstrap
from trainer.thresholds.policies import BOOTSTRAP_SEED
from worker.inference.bundle import Bundle, load_bundle


def figures(test: pd.DataFrame, bundle: Bundle) -> tuple[float, dict[str, str]]:
    """The area under the ROC curve, and a row to print.

    The row has the area with its interval, by lesion and against proven nevi, and what each policy gives.

    Args:
        test: rows with ``label``, calibrated ``probability``, ``lesion_id`` and ``dx_type``.
        bundle: whose thresholds are used.
    """
    label, probability = test["label"].to_numpy(), test["probability"].to_numpy()
    bootstrap = LesionBootstrap(test["lesion_id"].to_numpy(object), label, seed=BOOTSTRAP_SEED)
    area = bootstrap(lambda weights: auroc(label, probability, weights))
    lesions, proven = by_lesion(test), test[(test["label"] == 1) | (test["dx_type"] == "histo")]
    found = {
        "AUROC": f"{area.value:.4f} ({area.low:.4f} to {area.high:.4f})",
        "by lesion": f"{roc_auc_score(lesions['label'], lesions['highest']):.3f}",
        "proven nevi": f"{roc_auc_score(proven['label'], proven['probability']):.3f}",
    }
    for name, policy in bundle.manifest.thresholds.items():
        called = probability >= policy.threshold
        found[name] = f"{called[label == 1].mean():.1%} at {(~called[label == 0]).mean():.1%}"
    return area.value, found


def main() -> None:
    """Print a line for the bundle's own network, and one for each run."""
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    bundle = load_bundle(Path(sys.argv[1]))
    manifest, runs = bundle.manifest, [Path(run) for run in sys.argv[2:]]
    for run in runs:
        split = manifest_sha256(read_manifest(run))
        if split != manifest.split_manifest_sha256 or not RunFolder(run).model.is_file():
            sys.exit(f"Received: run {run}. Expected: a finished run of the bundle's split, --fold all.")
    for number, run in enumerate(runs):
        require_other_seeds(run, runs[:number])
    everything = read_images_of(runs[0], [Path(os.environ["DERMQ_HAM10000"])])
    test = melanoma_or_nevus(everything[everything["split"] == TEST])
    inputs = load_inputs([Path(path) for path in test["path"]], bundle.preprocessing)
    shipped = keras.models.load_model(bundle.folder / "model.keras")
    networks = {"the bundle": keras.Model(shipped.input, shipped.output["probability"])}
    for run in runs:
        log_test_access(run, "benchmarks/seeds.py")
        networks[run.name] = keras.models.load_model(RunFolder(run).model)
    found = {
        name: figures(test.assign(probability=manifest.calibration.apply(predict(network, inputs))), bundle)
        for name, network in networks.items()
    }
    print(pd.DataFrame({name: row for name, (_, row) in found.items()}).T.to_string())
    areas = [area for area, _ in found.values()]
    print(f"AUROC of {len(areas)} seeds: mean {np.mean(areas):.4f}, from {min(areas):.4f} to {max(areas):.4f}")


if __name__ == "__main__":
    main()
