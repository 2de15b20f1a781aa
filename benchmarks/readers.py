"""What dermq's readers cost and find, beside OpenCV alone, which read every format before.

    python benchmarks/readers.py FOLDER

The first table decodes JPEGs of a folder of real images. The second reads each kind of file of docs/formats.md, and
counts those of which a reader makes other pixels than the file means, without a word.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

# The files are made by the tests.
sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.format_cases import CASES, READ
from worker.errors import ImageFaultError
from worker.images.colour import RGBImage
from worker.images.decode import decode
from worker.images.opencv import cv2

JPEGS, ROUNDS = 400, 7
#: Grey levels by which a reading may differ on average before it counts as wrong: lossy formats round.
TOLERANCE = 1.5


def with_opencv(data: bytes) -> RGBImage | None:
    """What OpenCV alone makes of a file. None where it refuses."""
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error:
        return None
    return None if image is None else np.asarray(image, np.uint8)


def with_dermq(data: bytes) -> RGBImage | None:
    """What dermq makes of a file. None where it refuses."""
    try:
        return decode(data)
    except ImageFaultError:
        return None


def main() -> None:
    """Print both tables."""
    files = [path.read_bytes() for path in sorted(Path(sys.argv[1]).rglob("*.jpg"))[:JPEGS]]
    readers: dict[str, Callable[[bytes], RGBImage | None]] = {"OpenCV alone": with_opencv, "dermq": with_dermq}
    best = dict.fromkeys(readers, float("inf"))
    for _ in range(ROUNDS):
        for name, read in readers.items():
            start = time.process_time()
            for data in files:
                read(data)
            best[name] = min(best[name], time.process_time() - start)
    print(f"{len(files)} JPEGs, one processor, best of {ROUNDS} rounds")
    print(f"{'':24}{'ms an image':>12}{'ratio':>8}")
    for name, seconds in best.items():
        print(f"{name:24}{1000 * seconds / len(files):12.3f}{seconds / best['OpenCV alone']:8.2f}")
    print(f"\n{len(CASES)} files of every kind")
    print(f"{'':24}{'right':>8}{'refused':>9}{'wrong in silence':>18}")
    for name, read in readers.items():
        right = refused = wrong = 0
        for case in CASES:
            data = case.make()
            found = read(data)
            meant = None
            if case.outcome == READ:
                meant = case.expected if case.expected is not None or case.second is None else case.second(data)
            if found is None:
                refused += 1
            elif meant is None or found.shape != meant.shape or np.abs(found.astype(int) - meant).mean() > TOLERANCE:
                wrong += 1
            else:
                right += 1
        print(f"{name:24}{right:8}{refused:9}{wrong:18}")


if __name__ == "__main__":
    main()
