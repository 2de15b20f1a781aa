"""A bundle whose files hold nothing that an engine could load, for what needs its description and hashes alone."""

import hashlib
import json
from pathlib import Path
from typing import Any

FILES = {"model.xml": b"<net/>", "model.bin": b"\0\1\2\3", "model.keras": b"weights", "reference/one.png": b"a picture"}

_COUNTS = {"melanoma": 10, "nevus": 40}
_SHARE = {"value": 0.9, "low": 0.8, "high": 0.95}
METRICS = {
    "split": "test, lesion-disjoint, single pass",
    "images": _COUNTS,
    "lesions": _COUNTS,
    "auroc": _SHARE,
    "policies": {
        "youden": {"threshold": 0.3, "sensitivity": _SHARE, "specificity": _SHARE, "missed_melanoma_images": 1}
    },
}


def make_bundle(folder: Path, **changes: Any) -> Path:
    """Write a small bundle; ``changes`` replace keys of its bundle.json."""
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    manifest = {
        "format": 2,
        "name": "synthetic",
        "version": "1",
        "created": "2026-01-01T00:00:00Z",
        "backbone": "none",
        "classes": ["nv", "mel"],
        "input": {"size": 32, "fit": "cover", "colour_order": "RGB", "scale": "in the graph, from 0 to 255"},
        "outputs": ["probability", "features", "feature_map"],
        "thresholds": {
            "youden": {"threshold": 0.3, "borderline_threshold": 0.2, "sensitivity": 0.9, "specificity": 0.8},
            "sensitivity:0.95": {
                "threshold": 0.1,
                "borderline_threshold": 0.05,
                "sensitivity": 0.97,
                "specificity": 0.6,
            },
        },
        "calibration": {"method": "platt", "slope": 1.0, "intercept": 0.0},
        "quality": {"short_side": 100, "contrast": 1.0, "sharpness": 1.0},
        "metrics": METRICS,
        "split_manifest_sha256": "0" * 64,
        "licence": "none",
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()},
    }
    (folder / "bundle.json").write_text(json.dumps({**manifest, **changes}))
    return folder
