"""What the engine's fixed batch of one costs, and how fast each engine is beside the others in the same run.

    python benchmarks/engines.py [BUNDLE]

Prints images per second on one thread, in turn over several rounds, and the ratio to the engine that scores. The
machines are noisy: quote the median ratio, not the rates.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino

from worker.inference.bundle import Bundle, load_bundle
from worker.inference.engines import load_engine
from worker.settings import Settings
from worker.synthetic.lesion import draw_lesion

ROUNDS, IMAGES = 7, 64
Infer = Callable[[npt.NDArray[np.uint8]], object]


def batched(bundle: Bundle, batch: int, precision: str) -> Infer:
    """OpenVINO with another batch or precision than the worker's, for comparison."""
    size = bundle.manifest.input.size
    core = openvino.Core()
    model = core.read_model(bundle.folder / "model.xml")
    model.reshape([batch, size, size, 3])
    settings = {
        "INFERENCE_NUM_THREADS": 1,
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()

    def infer(images: npt.NDArray[np.uint8]) -> None:
        for start in range(0, len(images), batch):
            request.infer({0: images[start : start + batch]})

    return infer


def main() -> None:
    """Measure and print."""
    bundle = load_bundle(Path(sys.argv[1]) if len(sys.argv) > 1 else Settings().resolved_bundle())
    size = bundle.manifest.input.size
    images = np.stack([bundle.preprocessing(draw_lesion(seed, width=size, height=size)) for seed in range(IMAGES)])
    contenders: dict[str, Infer] = {
        f"OpenVINO {bundle.manifest.precision}, batch 1 (what scores)": load_engine("openvino", bundle).infer,
        "OpenVINO float32, batch 1": batched(bundle, 1, "f32"),
        "OpenVINO float32, batch 16": batched(bundle, 16, "f32"),
    }
    try:
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
        os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
        contenders["TensorFlow f32, batch 64 (reference)"] = load_engine("tensorflow", bundle).infer
    except Exception as error:
        print(f"without TensorFlow: {error}")
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(ROUNDS + 1):
        for name, infer in contenders.items():
            start = time.perf_counter()
            infer(images)
            if number:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
    base = seconds[next(iter(contenders))]
    print(f"{'engine, one thread':40} {'images/s':>9} {'ratio':>7}   (medians of {ROUNDS} rounds of {IMAGES} images)")
    for name, times in seconds.items():
        ratio = statistics.median(own / other for own, other in zip(base, times, strict=True))
        print(f"{name:40} {IMAGES / statistics.median(times):9.1f} {ratio:7.2f}")


if __name__ == "__main__":
    main()
