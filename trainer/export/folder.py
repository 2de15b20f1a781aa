"""The folder that a bundle is written to: what it may hold before, the hashes, and the replacement of an old bundle."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.errors import ExportError
from worker.atomic_files import bring_back, unfinished_folder
from worker.inference.bundle import BundleManifest, sha256_of
from worker.inference.bundle_reference import MANIFEST_NAME

#: Name of the old bundle while the new one takes its place.
_REPLACED = "replaced"


def refuse_occupied(target: Path, *, replace: bool, name: str, version: str) -> None:
    """Refuse a folder that holds something else, or a bundle that is not to be replaced.

    A bundle that a killed process had moved aside is moved back first.

    Args:
        target: folder of the bundle.
        replace: whether a bundle in it is replaced.
        name: of the new bundle.
        version: of the new bundle.

    Raises:
        ExportError: says what it holds; or name or version cannot be printed.
    """
    if not all(text.strip() and text.isprintable() for text in (name, version)):
        raise ExportError(
            f"The name {name!r} and the version {version!r} must not be empty and must be printable on one line: "
            "exports and messages tell bundles apart by them."
        )
    bring_back(target, _REPLACED)
    holds_bundle = (target / MANIFEST_NAME).is_file()
    if target.exists() and not holds_bundle and (target.is_file() or any(target.iterdir())):
        raise ExportError(f"{target} holds something else than a bundle. Name a new or empty folder.")
    if holds_bundle and not replace:
        raise ExportError(f"{target} already holds a bundle. Name a new folder, or replace the bundle with --replace.")
    if holds_bundle and _name_and_version(target) == (name, version):
        raise ExportError(
            f"The bundle in {target} already is {name} {version}. Choose another --version: exports and messages tell "
            "bundles apart by it."
        )


def _name_and_version(folder: Path) -> tuple[str, str] | None:
    """Name and version of a bundle. None if another version of dermq wrote it, or it is damaged."""
    try:
        manifest = json.loads((folder / MANIFEST_NAME).read_text())
        return manifest["name"], manifest["version"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def new_bundle(target: Path) -> Iterator[Path]:
    """A folder to make a bundle in. It takes the target's place if the block ends without an error.

    Args:
        target: folder of the bundle: new, empty, or with the bundle to replace.

    Yields:
        An empty folder. Call `seal` on it last.
    """
    with unfinished_folder(target) as scratch:
        folder = scratch / "bundle"
        folder.mkdir(mode=0o755)
        yield folder
        # Two renames, so that there is no bundle for an instant only.
        if target.exists():
            target.rename(scratch / _REPLACED)
        folder.rename(target)


def seal(folder: Path, manifest: BundleManifest) -> None:
    """Write ``bundle.json`` with the SHA-256 of every other file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    hashes = {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}
    (folder / MANIFEST_NAME).write_text(manifest.model_copy(update={"files": hashes}).model_dump_json(indent=2))
