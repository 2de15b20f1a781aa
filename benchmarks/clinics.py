"""Compare bundles clinic by clinic: the area under the ROC curve on the test images of each source, in pairs.

    python benchmarks/clinics.py OLD NEW [RUN]

OLD and NEW are folders of bundles; an earlier one comes from the history: `git archive REVISION models/ham10000-mel-nv
| tar -x -C FOLDER`. RUN is a run that was cross-fitted with folds of clinics: its predictions, each by a network that
has not seen the clinic, are compared with OLD's on the same images outside test.

Needs DERMQ_HAM10000 and DERMQ_MORE_DERMOSCOPY. Opens the test split: not for choosing between recipes.
"""

import os
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from trainer.config import RunConfig
from trainer.data.diagnoses import melanoma_or_nevus
from trainer.data.near_duplicates import linked_groups
from trainer.data.readers import read_datasets
from trainer.data.resized_cache import load_inputs
from trainer.data.scan import scan_images
from trainer.data.splits import TEST, draw_split
from trainer.metrics.discrimination import auroc
from trainer.networks.minibatches import predict_in_batches
from trainer.run_folder import RunFolder
from trainer.thresholds.bootstrap import LesionBootstrap
from trainer.thresholds.policies import BOOTSTRAP_SEED
from worker.inference.bundle import Bundle, load_bundle
from worker.inference.engines import load_engine
from worker.limits import available_cpus

Floats = npt.NDArray[np.float64]


def predict(bundle: Bundle, images: pd.DataFrame) -> Floats:
    """Probabilities of a bundle, calibrated, (n,)."""
    engine = load_engine("openvino", bundle, threads=available_cpus())
    inputs = load_inputs([Path(path) for path in images["path"]], bundle.preprocessing)
    raw = predict_in_batches(lambda part: engine.infer(part).probability, inputs)
    return bundle.manifest.calibration.apply(raw)


def print_rows(images: pd.DataFrame, names: tuple[str, str], groups: dict[str, "pd.Series[bool]"]) -> None:
    """A line for each group: both areas, and their difference with a 95% interval over lesions.

    Args:
        images: rows with ``label``, ``lesion_id``, ``old`` and ``new``.
        names: of the two columns, for the reader.
        groups: rows of each group.
    """
    print(f"{'source':24} {'mel':>5} {'nevi':>5} {names[0]:>8} {names[1]:>8}  difference")
    found = []
    for name, chosen in groups.items():
        part = images[chosen.to_numpy()]
        labels = part["label"].to_numpy()
        if len(np.unique(labels)) < 2:
            continue
        old, new = part["old"].to_numpy(), part["new"].to_numpy()
        bootstrap = LesionBootstrap(part["lesion_id"].to_numpy(object), labels, seed=BOOTSTRAP_SEED)
        difference = bootstrap(lambda w, y=labels, a=old, b=new: auroc(y, b, w) - auroc(y, a, w))  # type: ignore[misc]
        areas = [float(auroc(labels, scores, np.ones((1, len(labels))))[0]) for scores in (old, new)]
        found.append(areas)
        print(
            f"{name:24} {labels.sum():5} {(1 - labels).sum():5} {areas[0]:8.4f} {areas[1]:8.4f}  "
            f"{difference.value:+.4f} ({difference.low:+.4f} to {difference.high:+.4f})"
        )
    print(f"{'mean':36} {np.mean(found, axis=0)[0]:8.4f} {np.mean(found, axis=0)[1]:8.4f}")


def main() -> None:
    """Print both tables."""
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    old, new = (load_bundle(Path(name)) for name in sys.argv[1:3])
    config = RunConfig()
    folders = [Path(os.environ[name]) for name in ("DERMQ_HAM10000", "DERMQ_MORE_DERMOSCOPY")]
    everything = read_datasets(folders).images
    scan = scan_images([Path(path) for path in everything["path"]], Path(".cache/dermq"))
    everything["group"] = linked_groups(
        everything["lesion_id"], scan.thumbnails, config.near_duplicates, everything["patient_id"]
    )
    everything["split"] = draw_split(everything, kind=config.split, seed=config.split_seed)
    two = melanoma_or_nevus(everything)
    if len(sys.argv) == 4:
        predicted = pd.read_csv(RunFolder(Path(sys.argv[3])).chosen_predictions())
        images = predicted[["image_id", "fold", "probability"]].merge(two, on="image_id", validate="one_to_one")
        images = images.assign(old=predict(old, images), new=images["probability"])
        print("Clinics left out, on their images outside test")
        clinics = sorted(images["fold"].unique())
        groups = {name.removeprefix("source:"): images["fold"] == name for name in clinics}
        print_rows(images, ("old", "left out"), groups)
        print()
    test = two[two["split"] == TEST].reset_index(drop=True)
    test = test.assign(old=predict(old, test), new=predict(new, test))
    print("Test images")
    groups = {"HAM10000": test["collection"] == "HAM10000"}
    groups |= {name: test["dataset"] == name for name in sorted(test["dataset"].unique())}
    groups["bcn20000 + bcn_acral"] = test["dataset"].isin(("bcn20000", "bcn_acral"))
    print_rows(test, ("old", "new"), groups)


if __name__ == "__main__":
    main()
