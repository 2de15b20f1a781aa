"""What a bundle's gates stop and note: of folders of dermoscopic images hardly any, of other pictures nearly all.

    python benchmarks/gate.py FOLDER [FOLDER ...]
    python benchmarks/gate.py --spoiled FOLDER       200 images of it, spoiled in ten ways

Each folder is searched with its folders below; files that do not decode are left out.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from trainer.augmentation import perturbations
from worker.errors import ImageFaultError
from worker.images.colour import RGBImage
from worker.images.decode import decode
from worker.images.opencv import cv2
from worker.inference.bundle import Bundle, load_bundle
from worker.inference.engines.openvino import OpenVinoEngine
from worker.inference.quality_gate import Measured, QualityGate

BUNDLE = Path(__file__).parents[1] / "models" / "ham10000-mel-nv"
#: Images that are spoiled.
SPOILED = 200

Change = Callable[[RGBImage, np.random.Generator], RGBImage]


def _light(factor: float, offset: float = 0) -> Change:
    return lambda image, rng: np.clip(image * factor + offset, 0, 255).astype(np.uint8)


def _glare(image: RGBImage, rng: np.random.Generator) -> RGBImage:
    height, width = image.shape[:2]
    spots = np.zeros((height, width), np.float32)
    for _ in range(6):
        place = (int(rng.uniform(0, width)), int(rng.uniform(0, height)))
        cv2.circle(spots, place, int(rng.uniform(0.1, 0.25) * min(height, width)), (1.0,), -1)
    spots = np.asarray(cv2.GaussianBlur(spots, (0, 0), 6), np.float32)[..., None]
    return (image * (1 - spots) + 255 * spots).astype(np.uint8)


#: Ways to spoil an image.
CHANGES: dict[str, Change] = {
    "unchanged": lambda image, rng: image,
    "blur of 4 pixels": lambda image, rng: perturbations.blur(image, 4, rng),
    "blur of 12 pixels": lambda image, rng: perturbations.blur(image, 12, rng),
    "light x 0.4": _light(0.4),
    "light x 0.15": _light(0.15),
    "light x 1.6": _light(1.6),
    "light x 0.2 + 205": _light(0.2, 205),
    "six spots of glare": _glare,
    "40 hairs": lambda image, rng: perturbations.hair(image, 40, rng),
    "a frame, 0.6 clear": lambda image, rng: perturbations.vignette(image, 0.6, rng),
    "a frame, 0.25 clear": lambda image, rng: perturbations.vignette(image, 0.25, rng),
}


class Gates:
    """A bundle's gates with its network.

    Args:
        bundle: verified.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle, self._gate = bundle, QualityGate.load(bundle)
        self._engine = OpenVinoEngine(bundle, threads=2)

    def outcome(self, image: RGBImage) -> tuple[str, Sequence[str]]:
        """Why an image is refused, or ``passed``, and its notes."""
        short = min(image.shape[:2])
        if (small := self._gate.check_size(short)) is not None:
            return small[0], ()
        model_input = self._bundle.preprocessing(image)
        measured = self._gate.check(short, model_input)
        if isinstance(measured, Measured):
            features = self._engine.infer(model_input[None], features=True).features
            assert features is not None
            measured = self._gate.check_features(measured, features[0])
        return ("passed", measured.notes) if isinstance(measured, Measured) else (measured[0], ())


def main() -> None:
    """Check every image and print a table for each folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--spoiled", action="store_true", help="spoil images of the folder")
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    arguments = parser.parse_args()
    gates = Gates(load_bundle(arguments.bundle))
    for folder in arguments.folders:
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        if arguments.spoiled:
            _spoil(gates, folder, [paths[place] for place in np.linspace(0, len(paths) - 1, SPOILED).astype(int)])
            continue
        counts, notes = Counter[str](), Counter[str]()
        with ThreadPoolExecutor(2) as pool:
            for image in pool.map(_decoded, paths):
                outcome, noted = ("not decoded", ()) if image is None else gates.outcome(image)
                counts[outcome] += 1
                notes.update(noted)
                notes["any note"] += bool(noted)
        left_out = counts.pop("not decoded", 0)
        total = counts.total()
        print(f"{folder.name}: {total:,} images, {left_out:,} other files")
        for name, count in counts.most_common():
            print(f"  {name:22} {count:7,}  {count / total:.2%}")
        for name, count in notes.most_common():
            print(f"    noted {name:14} {count:7,}  {count / total:.2%}")


def _decoded(path: Path) -> RGBImage | None:
    try:
        return decode(path.read_bytes())
    except (ImageFaultError, OSError):
        return None


def _spoil(gates: Gates, folder: Path, paths: Sequence[Path]) -> None:
    images = [image for path in paths if (image := _decoded(path)) is not None]
    print(f"{folder.name}: {len(images)} images, spoiled\n{'':22} refused  noted  as")
    for name, change in CHANGES.items():
        rng = np.random.default_rng(0)
        found = [gates.outcome(change(image, rng)) for image in images]
        refused = np.mean([outcome != "passed" for outcome, _ in found])
        noted = np.mean([bool(notes) for _, notes in found])
        reasons = Counter(word for outcome, notes in found for word in (*notes, outcome) if word != "passed")
        said = ", ".join(f"{word} {count}" for word, count in reasons.most_common(3))
        print(f"{name:22} {refused:7.1%} {noted:6.1%}  {said}")


if __name__ == "__main__":
    main()
