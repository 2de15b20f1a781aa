"""What it costs to ask a Keras network for its probabilities: an operation at a time, and by a traced graph.

    python benchmarks/keras_prediction.py [BACKBONE] [SIZE]

Training looks at validation after every epoch, so this is a part of its time. Synthetic images, in batches of
`trainer.networks.predict.PREDICT_BATCH`, in turn over several rounds. The machines are noisy: quote the median ratio.
"""

import os
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

from trainer.networks.heads import build_classifier
from trainer.networks.minibatches import predict_in_batches
from trainer.networks.predict import PREDICT_BATCH, traced

ROUNDS, IMAGES = 5, 8 * PREDICT_BATCH


def main() -> None:
    """Measure and print."""
    backbone = sys.argv[1] if len(sys.argv) > 1 else "efficientnet-lite0"
    size = int(sys.argv[2]) if len(sys.argv) > 2 else 224
    model = build_classifier(backbone, size, "none").scoring
    inputs = np.random.default_rng(1).integers(0, 256, (IMAGES, size, size, 3), np.uint8)
    contenders = {
        "an operation at a time": lambda part: keras.ops.convert_to_numpy(model(part.astype(np.float32))),
        "a traced graph (what fits and evaluates)": traced(model),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(ROUNDS + 1):
        for name, infer in contenders.items():
            start = time.perf_counter()
            predict_in_batches(infer, inputs, PREDICT_BATCH)
            if number:  # the first round traces
                seconds[name].append(time.perf_counter() - start)
    base, *_ = seconds.values()
    print(f"{backbone} at {size}, Keras' prediction          images/s   ratio   (medians of {ROUNDS} rounds)")
    found = [predict_in_batches(infer, inputs, PREDICT_BATCH) for infer in contenders.values()]
    for name, times in seconds.items():
        ratio = statistics.median(own / other for own, other in zip(base, times, strict=True))
        print(f"{name:48} {IMAGES / statistics.median(times):9.1f} {ratio:7.2f}")
    print(f"greatest difference of a probability: {np.abs(found[0] - found[1]).max():.1g}")


if __name__ == "__main__":
    main()
