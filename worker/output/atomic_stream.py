"""Where an export is written: a file that appears only when it is complete, or a stream that starts at once."""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol, TextIO

from worker.atomic_files import replace_file
from worker.errors import OutputError


class Output(Protocol):
    """A text to write to."""

    text: TextIO

    def restart(self) -> None:
        """Discard what was written, so that a transaction that runs again can write from the beginning.

        Raises:
            OutputError: a part has already left through a stream.
        """


@contextmanager
def open_output(target: Path | None, *, mode: int | None = None) -> Iterator[Output]:
    """Open an output. A file takes the target's place when the block ends without an error.

    A stream is written directly: the rows never lie in a temporary file, where others might find patient data.

    Args:
        target: a file, or a pipe or device, which is written as a stream. None is standard output.
        mode: of a new file, such as 0o600. None leaves it to the umask; a file that is replaced keeps its own.

    Raises:
        OSError: the target cannot be written.
    """
    if target is None:
        with _standard_output() as stream:
            yield _StreamOutput(stream)
    elif target.exists() and not target.is_file():
        with target.open("wb") as sink:
            yield _StreamOutput(sink)
    else:
        # The target of a symbolic link is replaced, not the link.
        resolved = target.resolve()
        mode = resolved.stat().st_mode & 0o777 if resolved.exists() else mode
        with replace_file(resolved) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as text:
            if mode is not None:
                os.fchmod(text.fileno(), mode)
            yield _FileOutput(text)


class _FileOutput:
    def __init__(self, text: TextIO) -> None:
        self.text = text

    def restart(self) -> None:
        self.text.seek(0)
        self.text.truncate()


class _CountingStream(io.RawIOBase):
    """Passes bytes on and remembers whether there were any."""

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink
        self.used = self.discarded = False

    def writable(self) -> bool:
        return True

    def write(self, data: "bytes | bytearray | memoryview") -> int:  # type: ignore[override]
        if not self.discarded:
            self.used = True
            self._sink.write(data)
        return len(data)

    def flush(self) -> None:
        if not self.discarded:
            self._sink.flush()


def _buffered(stream: io.RawIOBase) -> io.BufferedWriter:
    return io.BufferedWriter(stream)


class _StreamOutput:
    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink
        self._begin()

    def _begin(self) -> None:
        self._stream = _CountingStream(self._sink)
        # As UTF-8, whatever the encoding of the terminal.
        self.text: TextIO = io.TextIOWrapper(_buffered(self._stream), encoding="utf-8", newline="")

    def restart(self) -> None:
        if self._stream.used:
            raise OutputError(
                "The database was unavailable for a moment, after a part of the export was written: the output is "
                "incomplete. Export again; with -o FILE only a complete file appears."
            )
        # Nothing has left yet. When the old text is closed, its buffer must not be written.
        self._stream.discarded = True
        self._begin()


@contextmanager
def _standard_output() -> Iterator[BinaryIO]:
    if sys.stdout is None:
        # The shell closed it, as `>&-` does.
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    stream = sys.stdout.buffer
    try:
        yield stream
        stream.flush()
    except OSError:
        # Otherwise Python flushes once more at its end, and prints the same error in its own words.
        with suppress(OSError):
            stream.close()
        raise
