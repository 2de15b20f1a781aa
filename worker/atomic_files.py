"""Files and folders that are whole or absent, whenever the process is killed."""

import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
        unfinished.write_text(text, encoding="utf-8")


@contextmanager
def unfinished_folder(target: Path) -> Iterator[Path]:
    """A folder beside a target. Fill it, then rename it to the target, so that the target is always complete.

    First it removes what killed processes left of earlier attempts. It leaves the folder of a running process alone.

    Args:
        target: the folder to make or to replace; its parent is made.

    Yields:
        An empty folder on the target's file system. It is removed afterwards.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{target.name}{_UNFINISHED}"
    for left in target.parent.glob(f"{glob.escape(prefix)}*"):
        _remove_if_abandoned(left)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=prefix) as name, _held(Path(name)):
        yield Path(name)


def bring_back(target: Path, name: str) -> None:
    """Put a folder back that a killed process had put aside and not yet replaced.

    Args:
        target: the folder; nothing is done while there is one.
        name: its name in the `unfinished_folder`.
    """
    for left in target.parent.glob(f".{glob.escape(target.name)}{_UNFINISHED}*"):
        # A process that holds the lock is still exchanging the folders.
        with suppress(BlockingIOError, FileNotFoundError), _held(left):
            if not target.exists() and (left / name).is_dir():
                (left / name).rename(target)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder. The kernel releases it when this process ends, however it ends."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _remove_if_abandoned(folder: Path) -> None:
    # A process that holds the lock is still working. One that removed the folder first did the same.
    with suppress(BlockingIOError, FileNotFoundError):
        # In a folder that all may write to, another user may have made one of this name.
        if folder.lstat().st_uid != os.getuid() or folder.is_symlink():
            return
        with _held(folder):
            shutil.rmtree(folder)


def sweep_unfinished(folder: Path) -> None:
    """Remove the unfinished files that killed writers left in a folder."""
    for left in folder.glob(f"{_UNFINISHED}*"):
        for path in left.iterdir():
            path.unlink()
        left.rmdir()
