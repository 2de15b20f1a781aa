"""Areas of the weights between a bundle and the runs that began with it, on the images that each run left out.

    python benchmarks/interpolation.py BUNDLE RUN [RUN ...] --dataset FOLDER [--dataset FOLDER ...]

Wortsman et al., "Robust fine-tuning of zero-shot models", 2022. Each run needs `validation.csv` and `model.keras`, as
`dermq-train fit --fold source:NAME` writes them.
"""

import argparse
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from trainer.config import RunConfig
from worker.images.preprocess import Preprocessing

#: Parts of the way from the bundle to the run. Above 1: beyond it.
PARTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)


def main() -> None:
    """Print a line for each part, and a column for each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--dataset", type=Path, action="append", required=True)
    arguments = parser.parse_args()
    files = {path.stem: path for folder in arguments.dataset for path in folder.rglob("*.jpg")}
    begin = keras.models.load_model(arguments.bundle / "model.keras", compile=False).get_weights()
    areas: dict[float, list[float]] = {part: [] for part in PARTS}
    for run in arguments.runs:
        config = RunConfig.read(run)
        preprocessing = Preprocessing(size=config.size, fit=config.fit, reduced_decoding=config.reduced_decoding)
        model = keras.models.load_model(run / "model.keras", compile=False)
        end = model.get_weights()
        rows = pd.read_csv(run / "validation.csv")
        inputs = np.stack([preprocessing.load(files[image].read_bytes()) for image in rows["image_id"]])
        for part in PARTS:
            model.set_weights([part * b + (1 - part) * a for a, b in zip(begin, end, strict=True)])
            areas[part].append(float(roc_auc_score(rows["label"], model.predict(inputs, verbose=0).ravel())))
    print(f"{'part':>6}{''.join(f'{run.name:>16}' for run in arguments.runs)}{'mean':>10}")
    for part, found in areas.items():
        print(f"{part:6.2f}{''.join(f'{area:16.3f}' for area in found)}{np.mean(found):10.3f}")


if __name__ == "__main__":
    main()
