"""Files and folders of an export in a store such as ``s3://``: written here, then put there when they are complete."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.errors import OutputError
from worker.images.read_remote import RemoteError, open_store


@contextmanager
def put_when_complete(address: str) -> Iterator[Path]:
    """A path to write a file or a folder to. It is put into the store when the block ends without an error.

    Readers see each file as a whole or not at all: an object appears when all of it has arrived.

    Args:
        address: such as ``s3://bucket/exports/7.csv``.

    Yields:
        A path in a folder that only this user can read.

    Raises:
        OutputError: the store cannot be used.
    """
    try:
        store = open_store(address)
    except RemoteError as error:
        raise OutputError(f"{address} cannot be written: {error}.") from None
    with tempfile.TemporaryDirectory(prefix="dermq-export-") as folder:
        target = Path(folder) / (address.rstrip("/").rpartition("/")[2] or "export")
        yield target
        if not target.exists():
            return
        files = sorted(target.iterdir()) if target.is_dir() else [target]
        for file in files:
            try:
                store.files.put_file(str(file), store.address(file.name) if target.is_dir() else store.prefix)
            except Exception as error:
                # Each store raises its own classes.
                said = f"{type(error).__name__}: {error}" if isinstance(error, OSError) else type(error).__name__
                raise OutputError(
                    f"{address} could not be written ({said}). Check the bucket and the credentials, then export again."
                ) from None
