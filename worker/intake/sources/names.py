"""Finding the file that a manifest means, where its name is written in another way than on the disk.

Systems write é as one character or as two, take .JPG for .jpg, and an export of dermq escapes what no CSV can hold.
"""

import os
import unicodedata
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

from worker.images.formats import IMAGE_SUFFIXES
from worker.images.read import text_to_path
from worker.output.safe_cells import meant_by

#: Folders whose names are kept at once.
_FOLDERS = 64


class FileFinder:
    """Finds files under a root by names that are written in other ways. Only where exactly one file fits.

    Args:
        root: folder that the paths are relative to.
    """

    def __init__(self, root: Path) -> None:
        self._root = os.fspath(root)
        self._names = lru_cache(maxsize=_FOLDERS)(self._read_names)
        self._by_stem: dict[str, list[str]] | None = None

    def from_export(self, cell: str) -> str | None:
        """The path that an export wrote into this cell, as the database stores it. None where no such file exists."""
        for candidate in meant_by(cell):
            try:
                if os.path.lexists(os.path.join(self._root, text_to_path(candidate))):  # noqa: PTH118
                    return candidate
            except (OSError, ValueError):
                continue
        return None

    def similar(self, path: str) -> str | None:
        """The one file whose path differs in Unicode form and case only, as a path of the file system."""
        found = ""
        for part in path.split("/"):
            names = self._names(found)
            if part in names.get(_key(part), ()):
                found = os.path.join(found, part)  # noqa: PTH118
                continue
            fitting = names.get(_key(part), [])
            if len(fitting) != 1:
                return None
            found = os.path.join(found, fitting[0])  # noqa: PTH118
        return found

    def by_identifier(self, identifier: str, walk: Callable[[], Iterator[str]]) -> str | None:
        """The one image file at any depth whose name without its suffix is an identifier, such as ISIC_0024306.

        Args:
            identifier: of a data set's metadata.
            walk: lists all images under the root, as the database stores paths. Called once.
        """
        if self._by_stem is None:
            self._by_stem = {}
            for path in walk():
                stem = _key(path.rpartition("/")[2].rpartition(".")[0])
                self._by_stem.setdefault(stem, []).append(path)
        stem, suffix = os.path.splitext(identifier)  # noqa: PTH122
        found = self._by_stem.get(_key(stem if suffix.lower() in IMAGE_SUFFIXES else identifier), [])
        return found[0] if len(found) == 1 else None

    def _read_names(self, folder: str) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {}
        try:
            for name in os.listdir(os.path.join(self._root, folder)):  # noqa: PTH118, PTH208
                names.setdefault(_key(name), []).append(name)
        except (OSError, ValueError):
            pass
        return names


def _key(name: str) -> str:
    """Equal for names that differ in Unicode form and case only."""
    # Not NFKD, and not casefold: ² is not 2, and ß is not ss.
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).lower())
