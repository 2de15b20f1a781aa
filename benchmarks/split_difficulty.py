"""How hard the test split is among others that might have been drawn: what one fixed method gives on each.

    DERMQ_HAM10000=/data/HAM10000 python benchmarks/split_difficulty.py [SPLITS]

The method learns little and in a second: a logistic regression on what EfficientNet-Lite0, as ImageNet left it, says of
each image. It is fitted on the training side of a split and evaluated on the others, for the default split and for
others that differ by the seed alone. Its areas under the ROC curve say nothing of a trained network's; how far one
split's lies from the mean of all says how hard that split is. Nothing may be chosen by it: it uses test images.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from trainer.config import RunConfig
from trainer.data.diagnoses import melanoma_or_nevus
from trainer.data.near_duplicates import linked_groups
from trainer.data.resized_cache import load_inputs
from trainer.data.splits import TEST, TRAIN, VALIDATION, draw_split
from trainer.networks.backbones import build_backbone
from trainer.networks.minibatches import predict_in_batches
from trainer.training.fit import read_scanned
from worker.images.preprocess import Preprocessing

#: Directions that are kept of the features, and the strength of the regression's penalty: fixed, never searched for.
COMPONENTS, C = 256, 0.01
SIDES = (VALIDATION, TEST)


def features(images: pd.DataFrame, config: RunConfig) -> npt.NDArray[np.float64]:
    """Means of the last feature map, rotated onto their main directions and brought to unit variance."""
    backbone = build_backbone(config.backbone, config.size)
    inputs = load_inputs([Path(path) for path in images["path"]], Preprocessing(size=config.size))
    means = predict_in_batches(lambda part: np.asarray(backbone(part.astype(np.float32))).mean(axis=(1, 2)), inputs)
    rotated: npt.NDArray[np.float64] = PCA(COMPONENTS, whiten=True, random_state=0).fit_transform(means)
    return rotated


def areas(found: npt.NDArray[np.float64], images: pd.DataFrame) -> list[float]:
    """Area under the ROC curve of each side's images, and of test against nevi that histology proved."""
    side, label = images["split"].to_numpy(), images["label"].to_numpy()
    train = side == TRAIN
    method = LogisticRegression(C=C, class_weight="balanced", max_iter=500).fit(found[train], label[train])
    score = method.decision_function(found)
    chosen = [side == name for name in SIDES]
    chosen.append(chosen[-1] & ((label == 1) | (images["dx_type"] == "histo").to_numpy()))
    return [float(roc_auc_score(label[rows], score[rows])) for rows in chosen]


def main() -> None:
    """Print the areas of the split of the defaults, and where they lie among those of the others."""
    splits = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    config = RunConfig()
    everything, seen = read_scanned([Path(os.environ["DERMQ_HAM10000"])], Path(".cache/dermq"), config)
    everything["group"] = linked_groups(everything["lesion_id"], seen.thumbnails, config.near_duplicates)
    found = features(melanoma_or_nevus(everything), config)
    rows = []
    for seed in (config.split_seed, *range(splits)):
        everything["split"] = draw_split(everything, kind=config.split, seed=seed)
        rows.append(areas(found, melanoma_or_nevus(everything)))
    ours, others = np.array(rows[0]), np.array(rows[1:])
    print(f"area under the ROC curve    this split   mean of {splits}   deviation   splits with a smaller one")
    for name, own, among in zip((*SIDES, "test, proven nevi"), ours, others.T, strict=True):
        print(f"{name:26}  {own:10.4f}   {among.mean():11.4f}   {among.std():9.4f}   {(among < own).mean():10.0%}")


if __name__ == "__main__":
    main()
