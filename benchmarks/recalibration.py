"""How many labelled images a clinic needs for thresholds of its own, by simulation.

    python benchmarks/recalibration.py RUN [--repeats 300]

RUN was cross-fitted with folds of clinics, so that each clinic was predicted by a network that has not seen it. From
the predictions of a clinic some lesions are drawn, half melanomas; calibration and thresholds are fitted on them as
`dermq-train recalibrate` does, and measured on all other lesions of that clinic. Printed are the median and the 5th
percentile over the repeats.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd

from trainer.errors import TrainerError
from trainer.run_folder import RunFolder
from trainer.thresholds.policies import calibrate, choose_thresholds
from trainer.thresholds.threshold import operating_point

#: Melanoma lesions that are labelled, with as many nevi.
SIZES = (20, 30, 60, 100, 150)
POLICIES = ("youden", "sensitivity:0.85", "sensitivity:0.90")


def simulate(images: pd.DataFrame, melanomas: int, rng: np.random.Generator) -> dict[str, tuple[float, float]]:
    """Sensitivity and specificity by policy on the lesions that were not drawn. A policy may be refused."""
    lesions = images.groupby("lesion_id")["label"].first()
    drawn = np.concatenate(
        [rng.choice(lesions.index[lesions == label].to_numpy(), melanomas, replace=False) for label in (1, 0)]
    )
    chosen = images["lesion_id"].isin(drawn).to_numpy()
    labels, raw = images["label"].to_numpy(), images["probability"].to_numpy()
    names = images["lesion_id"].to_numpy(object)
    calibration = calibrate(labels[chosen], raw[chosen])
    thresholds, _ = choose_thresholds(labels[chosen], calibration.apply(raw[chosen]), names[chosen])
    rest = ~chosen
    found = {}
    for policy, threshold in thresholds.items():
        point = operating_point(labels[rest], calibration.apply(raw[rest]), threshold)
        found[policy] = (point.sensitivity, point.specificity)
    return found


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--repeats", type=int, default=300)
    arguments = parser.parse_args()
    predictions = pd.read_csv(RunFolder(arguments.run).chosen_predictions())
    print(f"{'clinic':22} {'melanoma lesions':>16}  policy            sensitivity (5%)   specificity (5%)")
    for clinic, images in predictions.groupby("fold"):
        rng = np.random.default_rng(1)
        lesions = images.groupby("lesion_id")["label"].first()
        fewest = min(int((lesions == label).sum()) for label in (0, 1))
        for melanomas in SIZES:
            if 2 * melanomas > fewest:
                continue
            values: dict[str, list[tuple[float, float]]] = defaultdict(list)
            for _ in range(arguments.repeats):
                try:
                    for policy, pair in simulate(images, melanomas, rng).items():
                        values[policy].append(pair)
                except TrainerError:
                    values["refused"].append((0.0, 0.0))
            for policy in POLICIES:
                if policy in values:
                    pairs = np.array(values[policy])
                    middle, low = np.median(pairs, axis=0), np.percentile(pairs, 5, axis=0)
                    name = str(clinic).removeprefix("source:")
                    print(
                        f"{name:22} {melanomas:16}  {policy:16}  {middle[0]:6.3f} ({low[0]:.3f})     "
                        f"{middle[1]:6.3f} ({low[1]:.3f})"
                    )


if __name__ == "__main__":
    main()
