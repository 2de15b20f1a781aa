"""What the shipped bundle's gates stop: of folders of dermoscopic images hardly any, of other pictures most.

    python benchmarks/gate.py FOLDER [FOLDER ...]

Each folder is searched with its folders below; files that do not decode are left out.
"""

import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from worker.errors import ImageFaultError
from worker.images.decode import decode
from worker.inference.bundle import load_bundle
from worker.inference.quality_gate import QualityGate

BUNDLE = Path(__file__).parents[1] / "models" / "ham10000-mel-nv"


def main() -> None:
    """Check every image and print a table for each folder."""
    bundle = load_bundle(BUNDLE)
    gate = QualityGate.load(bundle)

    def outcome(path: Path) -> str:
        try:
            image = decode(path.read_bytes())
        except (ImageFaultError, OSError):
            return "not decoded"
        refusal = gate.check_size(min(image.shape[:2])) or gate.check(min(image.shape[:2]), bundle.preprocessing(image))
        return refusal[0] if refusal else "passed"

    for folder in sys.argv[1:]:
        with ThreadPoolExecutor() as pool:
            counts = Counter(pool.map(outcome, (path for path in sorted(Path(folder).rglob("*")) if path.is_file())))
        left_out = counts.pop("not decoded", 0)
        total = counts.total()
        print(f"{folder}: {total:,} images, {left_out:,} other files")
        for name, count in counts.most_common():
            print(f"  {name:20} {count:7,}  {count / total:.2%}")


if __name__ == "__main__":
    main()
