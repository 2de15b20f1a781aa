"""What names a bundle to people and to the database, read from its description alone."""

from dataclasses import dataclass
from pathlib import Path

from worker.inference.bundle import MANIFEST_NAME, BundleManifest, sha256_of
from worker.settings import Settings


@dataclass(frozen=True, kw_only=True)
class BundleName:
    """Name and version, and the SHA-256 of ``bundle.json``, by which jobs know their bundle."""

    sha256: str
    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version} ({self.sha256[:12]})"


def bundle_here(settings: Settings) -> BundleName | None:
    """The bundle that these settings name; None when its description cannot be read. Other files are not looked at."""
    return _name(settings.resolved_bundle())


def bundle_running(settings: Settings) -> BundleName | None:
    """The bundle of a `dermq up` that runs here, whose workers score under no other one; None where none runs."""
    running = settings.running_bundle() if settings.is_up() else None
    return _name(running) if running else None


def _name(folder: Path) -> BundleName | None:
    path = folder / MANIFEST_NAME
    try:
        manifest = BundleManifest.model_validate_json(path.read_bytes())
        return BundleName(sha256=sha256_of(path), name=manifest.name, version=manifest.version)
    except (OSError, ValueError):
        return None
