"""What training the batch normalisation costs a step, with Keras' own operations and with TensorFlow's fused one.

    python benchmarks/training_step.py [BACKBONE] [SIZE]

Steps of a batch of 32 synthetic images, in turn over several rounds, and the ratio to a step with frozen statistics.
The machines are noisy: quote the median ratio, not the rates.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np

from trainer.config import RunConfig
from trainer.data.diagnoses import DIAGNOSES
from trainer.networks.heads import build_seven_class_classifier
from trainer.training.fused_batch_normalisation import fused_batch_normalisation
from trainer.training.stages import prepare, stages_of

ROUNDS, STEPS, BATCH = 5, 4, 32
Step = Callable[[], object]


def step_of(backbone: str, size: int, *, batch_normalisation: str, fused: bool) -> Step:
    """A training step of a network of its own, traced already."""
    config = RunConfig(
        classes="seven", backbone=backbone, size=size, weights="none", batch_normalisation=batch_normalisation
    )
    classifier = build_seven_class_classifier(backbone, size, "none")
    (stage,) = stages_of(config)
    prepare(classifier, stage, config, steps_per_epoch=100)
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (BATCH, size, size, 3)).astype(np.float32)
    labels = np.eye(len(DIAGNOSES), dtype=np.float32)[rng.integers(0, len(DIAGNOSES), BATCH)]
    with fused_batch_normalisation(classifier.trained) if fused else nullcontext():
        classifier.trained.train_on_batch(images, labels)
    return lambda: classifier.trained.train_on_batch(images, labels)


def main() -> None:
    """Measure and print."""
    backbone = sys.argv[1] if len(sys.argv) > 1 else "efficientnet-lite0"
    size = int(sys.argv[2]) if len(sys.argv) > 2 else 224
    contenders = {
        "frozen": step_of(backbone, size, batch_normalisation="frozen", fused=False),
        "trained, fused operation (what fits)": step_of(backbone, size, batch_normalisation="trained", fused=True),
        "trained, Keras' own operations": step_of(backbone, size, batch_normalisation="trained", fused=False),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(ROUNDS + 1):
        for name, step in contenders.items():
            start = time.perf_counter()
            for _ in range(STEPS):
                step()
            if number:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
    base = seconds["frozen"]
    print(f"{backbone} at {size}, batch normalisation  images/s   ratio   (medians of {ROUNDS} rounds)")
    for name, times in seconds.items():
        ratio = statistics.median(own / other for own, other in zip(base, times, strict=True))
        print(f"{name:40} {BATCH * STEPS / statistics.median(times):9.1f} {ratio:7.2f}")


if __name__ == "__main__":
    main()
