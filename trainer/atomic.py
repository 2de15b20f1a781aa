"""Files that are whole or absent, whenever the process is killed."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Marks a file that is being written; whoever is killed leaves one behind, and nobody reads it.
_UNFINISHED = ".unfinished-"


@contextmanager
def replace_file(target: Path) -> Iterator[Path]:
    """Write a file beside its target and put it in the target's place when it is complete and on disk.

    Args:
        target: the file to make or to replace.

    Yields:
        The path to write to; it ends like the target, since Keras goes by the ending.
    """
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=_UNFINISHED) as folder:
        unfinished = Path(folder) / target.name
        yield unfinished
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(target)
    # The name is on disk only when its folder is.
    descriptor = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(target: Path, text: str) -> None:
    """Replace a text file as a whole."""
    with replace_file(target) as unfinished:
        unfinished.write_text(text)


def sweep_unfinished(folder: Path) -> None:
    """Take away what killed writers left in a folder."""
    for left in folder.glob(f"{_UNFINISHED}*"):
        for path in left.iterdir():
            path.unlink()
        left.rmdir()
