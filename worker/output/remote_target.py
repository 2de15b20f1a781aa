"""Files and folders of an export in a store such as ``s3://``: written here, then put there when they are complete."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.atomic_files import unfinished_folder
from worker.errors import OutputError
from worker.images.read_remote import RemoteError, RemoteStore, open_store


@contextmanager
def put_when_complete(address: str, *, folder: bool = False) -> Iterator[Path]:
    """A path to write a file or a folder to. It is put into the store when the block ends without an error.

    Readers see each file as a whole or not at all: an object appears when all of it has arrived. What a killed export
    left on this machine, with names of patients perhaps, the next one removes.

    Args:
        address: such as ``s3://bucket/exports/7.csv``.
        folder: whether a folder is put there. It must be new: a store cannot replace one as a whole.

    Yields:
        A path in a folder that only this user can read.

    Raises:
        OutputError: the store cannot be used.
    """
    try:
        store = open_store(address)
    except RemoteError as error:
        raise OutputError(f"{address} cannot be written: {error}.") from None
    if folder:
        _refuse_taken(store, address)
    with unfinished_folder(Path(tempfile.gettempdir()) / f"dermq-export-{os.getuid()}") as place:
        target = place / (address.rstrip("/").rpartition("/")[2] or "export")
        yield target
        if not target.exists():
            return
        files = sorted(target.iterdir()) if target.is_dir() else [target]
        for file in files:
            try:
                store.files.put_file(str(file), store.address(file.name) if target.is_dir() else store.prefix)
            except Exception as error:
                raise _failed(address, error) from None


def _refuse_taken(store: RemoteStore, address: str) -> None:
    try:
        # `exists` would take every error for a no.
        taken = bool(store.files.ls(store.prefix, refresh=True))
    except FileNotFoundError:
        return
    except Exception as error:
        raise _failed(address, error) from None
    if taken:
        raise OutputError(f"{address} is there already. Name a new folder for the reports.")


def _failed(address: str, error: Exception) -> OutputError:
    # Each store raises its own classes.
    said = f"{type(error).__name__}: {error}" if isinstance(error, OSError) else type(error).__name__
    return OutputError(
        f"{address} could not be written ({said}). Check the bucket and the credentials, then export again."
    )
