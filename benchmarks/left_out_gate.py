"""What the OOD gate does to a clinic and to a kind of pictures that it has not seen, by leaving out one of each.

    python benchmarks/left_out_gate.py --dataset HAM10000 --dataset more-dermoscopy --not-dermoscopy FOLDER …

Each source of dermoscopic images is left out once, with a kind of other pictures; each kind of some size is left out at
least once. The kinds are the folders directly in FOLDER. Another gate, without any other picture, is fitted on the same
images: the distance of `trainer.export.ood_statistics`.
"""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np

from trainer.data.load_images import load_images
from trainer.data.readers import read_datasets
from trainer.export import ood_statistics
from trainer.export.ood_detector import LIMIT_QUANTILE, Seen, fit_detector, read_other_pictures
from worker.inference.bundle import load_bundle
from worker.inference.engines.openvino import OpenVinoEngine

BUNDLE = Path(__file__).parents[1] / "models" / "ham10000-mel-nv"
#: Images of each source, and the fewest pictures of a kind that is left out by itself.
IMAGES, KIND = 1_000, 100


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, action="append", required=True)
    parser.add_argument("--not-dermoscopy", type=Path, action="append", required=True)
    arguments = parser.parse_args()
    bundle = load_bundle(BUNDLE)
    engine = OpenVinoEngine(bundle, threads=2)
    rng = np.random.default_rng(0)

    def seen(inputs: np.ndarray) -> Seen:
        parts = [
            engine.infer(inputs[start : start + 256], features=True).features for start in range(0, len(inputs), 256)
        ]
        return Seen.of(inputs, np.concatenate([part for part in parts if part is not None]))

    table = read_datasets(arguments.dataset).images
    chosen = table.iloc[rng.permutation(len(table))].groupby("dataset").head(IMAGES)
    inputs = load_images([Path(path) for path in chosen["path"]], bundle.preprocessing).inputs
    sources, images = chosen["dataset"].to_numpy(str), seen(inputs)
    pictures = read_other_pictures(arguments.not_dermoscopy, bundle.preprocessing, 5_000)
    others = seen(pictures.inputs)
    sizes = Counter(Path(group).name for group in pictures.groups)
    kinds = np.array(
        [name if sizes[name] >= KIND else "other" for name in (Path(group).name for group in pictures.groups)]
    )
    names, all_kinds = list(dict.fromkeys(sources)), sorted(set(kinds))
    print(
        f"{len(inputs):,} dermoscopic images of {len(names)} sources, {len(kinds):,} other pictures of {len(all_kinds)}"
    )
    print(f"{'source left out':16} {'kind left out':24} {'refused':>8} {'caught':>8}   by distance: refused, caught")
    rows = []
    for turn in range(max(len(names), len(all_kinds))):
        source, kind = names[turn % len(names)], all_kinds[turn % len(all_kinds)]
        left, left_kind = sources == source, kinds == kind
        first = rng.random(len(sources)) < 0.6
        detector = fit_detector(images[~left & first], others[~left_kind])
        scores, other_scores = (detector.scores(each.measures, each.features) for each in (images, others))
        limit = np.quantile(scores[~left & ~first], LIMIT_QUANTILE)
        mean, precision = ood_statistics.fit_gaussian(images.measures[~left & first])
        distances, other_distances = (
            np.sqrt(np.einsum("ni,ij,nj->n", each - mean, precision, each - mean))
            for each in (images.measures, others.measures)
        )
        far = np.quantile(distances[~left & ~first], ood_statistics.LIMIT_QUANTILE)
        row = (
            np.mean(scores[left] > limit),
            np.mean(other_scores[left_kind] > limit),
            np.mean(distances[left] > far),
            np.mean(other_distances[left_kind] > far),
        )
        rows.append(row)
        print(f"{source:16} {kind:24} {row[0]:8.1%} {row[1]:8.1%} {row[2]:18.1%} {row[3]:8.1%}", flush=True)
    mean_row, greatest = np.mean(rows, axis=0), np.max(rows, axis=0)
    print(f"{'mean':41} {mean_row[0]:8.1%} {mean_row[1]:8.1%} {mean_row[2]:18.1%} {mean_row[3]:8.1%}")
    print(f"{'most refused, fewest caught':41} {greatest[0]:8.1%} {np.min(rows, axis=0)[1]:8.1%}")


if __name__ == "__main__":
    main()
