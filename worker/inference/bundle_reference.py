"""What identifies a bundle for people and for the database, read from ``bundle.json`` alone. Loads no image code."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from worker.regular_files import read_regular
from worker.settings import Settings
from worker.terminal import printable

#: The file that describes a bundle. Its SHA-256 identifies the bundle.
MANIFEST_NAME = "bundle.json"


@dataclass(frozen=True, kw_only=True)
class BundleReference:
    """Name, version, and the SHA-256 of ``bundle.json``, which jobs store."""

    sha256: str
    name: str
    version: str

    def __str__(self) -> str:
        return printable(f"{self.name} {self.version} ({self.sha256[:12]})")


def configured_bundle(settings: Settings) -> BundleReference | None:
    """The bundle that these settings name. None when its ``bundle.json`` cannot be read."""
    return _read(settings.resolved_bundle())


def bundle_precision(settings: Settings) -> str:
    """The precision in which the configured bundle is computed. Empty when it cannot be read."""
    try:
        manifest = json.loads(read_regular(settings.resolved_bundle() / MANIFEST_NAME))
        return printable(str(manifest.get("precision", "float32")))
    except (OSError, ValueError, AttributeError, RecursionError):
        return ""


def running_bundle(settings: Settings) -> BundleReference | None:
    """The bundle of a `dermq up` that runs here; its workers score with no other. None when none runs."""
    folder = settings.running_bundle() if settings.is_up() else None
    return _read(folder) if folder else None


def _read(folder: Path) -> BundleReference | None:
    try:
        data = read_regular(folder / MANIFEST_NAME)
        manifest = json.loads(data)
        name, version = manifest["name"], manifest["version"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if not (isinstance(name, str) and isinstance(version, str)):
        return None
    return BundleReference(sha256=hashlib.sha256(data).hexdigest(), name=name, version=version)
