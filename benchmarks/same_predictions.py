"""Whether two versions of dermq give the same probabilities: for a change that must not move any.

    git worktree add /tmp/before COMMIT
    python benchmarks/same_predictions.py /tmp/before /data/HAM10000 [--images 2000]

Each version decodes, preprocesses and infers the same files with its own code and its own shipped bundle. Prints the
largest difference of a calibrated probability, and the number of images whose flag or refusal changed.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
#: Run by each version. Prints for each file its calibrated probability and flags by policy, or why it is not scored.
_SCORE = """
import json, sys
from pathlib import Path
import numpy as np
from worker.inference.bundle import load_bundle
from worker.images.decode import decode
from worker.scoring.loaded_model import LoadedModel
model = LoadedModel.load(load_bundle(Path(sys.argv[1])), "openvino")
manifest = model.bundle.manifest
for line in sys.stdin:
    try:
        image = decode(Path(line.rstrip("\\n")).read_bytes())
    except Exception as error:
        print(json.dumps([type(error).__name__, None]))
        continue
    ready = model.bundle.preprocessing(image)
    refused = model.gate.check(min(image.shape[:2]), ready)
    probability = float(manifest.calibration.apply(model.engine.infer(ready[None]).probability)[0])
    flags = [int(probability >= each.threshold) + int(probability >= each.borderline_threshold)
             for _, each in sorted(manifest.thresholds.items())]
    print(json.dumps([str(refused[0]) if refused else flags, probability]))
"""


def main() -> None:
    """Score with both versions, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="another checkout")
    parser.add_argument("folder", type=Path, help="real images")
    parser.add_argument("--images", type=int, default=2_000, help="images to score (2000)")
    arguments = parser.parse_args()
    files = sorted(path for path in arguments.folder.rglob("*") if path.suffix.lower() in (".jpg", ".png", ".tif"))
    files = files[:: max(1, len(files) // arguments.images)][: arguments.images]
    before, after = (_scores(checkout, files) for checkout in (arguments.before, ROOT))
    pairs = list(zip(before, after, strict=True))
    differences = [abs(one[1] - other[1]) for one, other in pairs if None not in (one[1], other[1])]
    changed = sum(one[0] != other[0] for one, other in pairs)
    same = sum(difference == 0 for difference in differences)
    print(
        f"{len(files):,} images: largest difference {max(differences):.2g}, {same:,} of {len(differences):,} equal to "
        f"the last bit, {changed} flags or refusals changed"
    )


def _scores(checkout: Path, files: list[Path]) -> list[list[Any]]:
    done = subprocess.run(
        [sys.executable, "-P", "-c", _SCORE, str(next((checkout / "models").glob("*/bundle.json")).parent)],
        input="\n".join(map(str, files)),
        env={**os.environ, "PYTHONPATH": str(checkout.resolve())},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


if __name__ == "__main__":
    main()
