"""Where a bundle is written: what may lie there before, its hashes, and the change of the old one for the new."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.atomic_files import bring_back, unfinished_folder
from worker.inference.bundle import MANIFEST_NAME, BundleManifest, sha256_of

#: Where the bundle that is to be replaced lies until the new one has its place.
_REPLACED = "replaced"


class ExportError(Exception):
    """The bundle is refused; the text says what did not hold."""


def refuse_occupied(target: Path, *, replace: bool, name: str, version: str) -> None:
    """Refuse a folder that holds something else, or a bundle that is not to be replaced.

    A bundle that a killed process had put aside is brought back first: what else is left of it is taken away later.

    Args:
        target: folder of the bundle.
        replace: whether a bundle in it may go.
        name: of the new bundle.
        version: of the new bundle.

    Raises:
        ExportError: with what it holds; or name or version is empty.
    """
    if not (name.strip() and version.strip()):
        raise ExportError(
            f"Received: a bundle of the name {name!r} and the version {version!r}. Expected: neither empty; exports "
            "and messages tell bundles apart by them."
        )
    bring_back(target, _REPLACED)
    holds_bundle = (target / MANIFEST_NAME).is_file()
    if target.exists() and not holds_bundle and (target.is_file() or any(target.iterdir())):
        raise ExportError(
            f"Received: {target} to write a bundle to, which holds something else. Expected: a new or empty folder, or "
            "a bundle that is to be replaced."
        )
    if holds_bundle and not replace:
        raise ExportError(
            f"Received: {target} to write a bundle to, which holds one. Expected: a new folder, or --replace to put "
            "the new one in its place."
        )
    if holds_bundle and _name_and_version(target) == (name, version):
        raise ExportError(
            f"Received: --version {version} for a bundle that replaces {name} {version}. Expected: another version: "
            "exports and messages tell bundles apart by it, and jobs that are open under the old one wait for that."
        )


def _name_and_version(folder: Path) -> tuple[str, str] | None:
    """Of a bundle that may be an older version's, or damaged: then None."""
    try:
        manifest = json.loads((folder / MANIFEST_NAME).read_text())
        return manifest["name"], manifest["version"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def new_bundle(target: Path) -> Iterator[Path]:
    """A folder to make a bundle in, which takes the target's place when the block ends without an error.

    Args:
        target: folder of the bundle, new, empty, or with the bundle that is to be replaced.

    Yields:
        An empty folder; `seal` must have been called on it in the end.
    """
    with unfinished_folder(target) as scratch:
        folder = scratch / "bundle"
        folder.mkdir(mode=0o755)
        yield folder
        # Two renames, so that the old bundle is away for an instant only.
        if target.exists():
            target.rename(scratch / _REPLACED)
        folder.rename(target)


def seal(folder: Path, manifest: BundleManifest) -> None:
    """Write ``bundle.json`` with the SHA-256 of every other file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    hashes = {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}
    (folder / MANIFEST_NAME).write_text(manifest.model_copy(update={"files": hashes}).model_dump_json(indent=2))
