"""An output that is written whole before anybody sees it: a file that takes its place at once, or a stream."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Protocol, TextIO


class Draft(Protocol):
    """What is written to ``text`` shows nowhere before `publish`."""

    text: TextIO

    def complete(self) -> None:
        """Everything is written: have it on the disk.

        Raises:
            OSError: the disk is full or fails.
        """

    def publish(self) -> None:
        """Let it be seen.

        Raises:
            OSError: it cannot be seen, or of a stream not all.
        """


@contextmanager
def draft_for(output: Path | None) -> Iterator[Draft]:
    """A draft for a file, or for what is written through: standard output, a pipe, a device.

    Args:
        output: where to; None is standard output.

    Raises:
        OSError: there is no room for it, or the file's folder takes none.
    """
    if output is None or (output.exists() and not output.is_file()):
        with tempfile.TemporaryFile("w+", newline="", encoding="utf-8") as text:
            yield _StreamDraft(text, output)
        return
    # What a link points to is replaced, not the link.
    target = output.resolve()
    beside = target.with_name(f".dermq-{os.getpid()}.part")
    # One that a killed export left behind, its process number being used again.
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(descriptor, "w", newline="", encoding="utf-8") as text:
            if target.exists():
                os.fchmod(descriptor, target.stat().st_mode & 0o777)
            yield _FileDraft(text, beside, target)
    finally:
        beside.unlink(missing_ok=True)


class _FileDraft:
    def __init__(self, text: TextIO, beside: Path, target: Path) -> None:
        self.text, self._beside, self._target = text, beside, target

    def complete(self) -> None:
        self.text.flush()
        os.fsync(self.text.fileno())

    def publish(self) -> None:
        self._beside.replace(self._target)
        # The new name too. It is there whatever this says.
        with suppress(OSError):
            folder = os.open(self._target.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


class _StreamDraft:
    def __init__(self, text: TextIO, output: Path | None) -> None:
        self.text, self._output = text, output

    def complete(self) -> None:
        self.text.flush()

    def publish(self) -> None:
        # As bytes: a terminal of another encoding must not stop an export in the middle.
        with open(self.text.fileno(), "rb", closefd=False) as whole:
            whole.seek(0)
            if self._output is not None:
                with self._output.open("wb") as sink:
                    shutil.copyfileobj(whole, sink)
            else:
                _to_standard_output(whole)


def _to_standard_output(whole: IO[bytes]) -> None:
    stream = sys.stdout.buffer
    try:
        shutil.copyfileobj(whole, stream)
        stream.flush()
    except OSError:
        # Or Python would try once more at its end, and complain in its own words.
        with suppress(OSError):
            stream.close()
        raise
