"""Large images: preprocessing 12-megapixel JPEGs as the shipped bundle does, beside decoding them fully.

    python benchmarks/large_images.py FOLDER [--images 12] [--rounds 3]

The images of the folder are enlarged to 4,000 x 3,000 pixels, with the noise of a camera, and compressed at quality 92.
One processor; the contenders take turns, image by image.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from worker.images.opencv import cv2
from worker.inference.bundle import load_bundle
from worker.settings import shipped_bundle

WIDTH, HEIGHT, QUALITY = 4_000, 3_000, 92


def enlarge(path: Path, rng: np.random.Generator) -> bytes:
    """A 12-megapixel JPEG of an image."""
    picture = cv2.resize(np.asarray(cv2.imread(str(path))), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    noisy = np.clip(picture + rng.normal(0, 4, picture.shape), 0, 255).astype(np.uint8)
    return bytes(cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="real images, such as HAM10000")
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    files, rng = sorted(arguments.folder.rglob("*.jpg")), np.random.default_rng(1)
    data = [enlarge(path, rng) for path in files[:: max(1, len(files) // arguments.images)][: arguments.images]]
    shipped = load_bundle(shipped_bundle()).preprocessing
    full = replace(shipped, reduced_decoding=False)
    contenders: dict[str, Callable[[bytes], object]] = {
        "decoding fully": lambda one: full.decode(one),
        "decoding fully, and resizing": lambda one: full.load(one),
        "decoding reduced": lambda one: shipped.decode(one),
        "decoding reduced, and resizing (what scores)": lambda one: shipped.load(one),
    }
    spent: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(arguments.rounds):
        for one in data:
            for name, work in contenders.items():
                started = time.perf_counter()
                work(one)
                spent[name].append(time.perf_counter() - started)
    first = statistics.median(spent["decoding fully"])
    print(f"{len(data)} JPEGs of {WIDTH} x {HEIGHT}, {sum(map(len, data)) / len(data) / 1e6:.1f} MB, one processor")
    print(f"{'':46} {'ms an image':>12} {'ratio':>7}")
    for name, seconds in spent.items():
        middle = statistics.median(seconds)
        print(f"{name:46} {1000 * middle:12.1f} {middle / first:7.2f}")


if __name__ == "__main__":
    main()
