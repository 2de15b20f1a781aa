"""Reading a file of an archive, with checks against everything that a hostile or broken archive can hold."""

import errno
import hashlib
import os
import re
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from db.status import FailureCode
from worker.errors import ImageFaultError

_OUTSIDE = "the path or a symbolic link leads out of the submitted folder, or of --root"
_NEVER_THERE = "the file was not there at submission either. Paths are relative to the job's root (--root)"
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})|\\\\|\\#[0-9]+$")
#: The end of a path that stands for one frame of a DICOM file. No other path ends so: backslashes are doubled.
_FRAME = re.compile(r"(?<!\\)(?:\\\\)*\\#([0-9]{1,9})$")
#: Errors of network shares that may be over in a moment: tried again after these seconds.
_TRANSIENT = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EREMOTEIO, errno.ENETUNREACH)
_PAUSES = (0.2, 1.0)
#: Greatest modification time that the database can store, in nanoseconds. File systems allow years after 2262.
_LATEST_NS = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class FileContent:
    """The content of a file.

    Args:
        data: its bytes.
        sha256: of the bytes, or of the bytes and the number of the frame.
        frame: of a DICOM file with several, from 1. None for the file as a whole.
    """

    data: bytes
    sha256: str
    frame: int | None = None


def path_to_text(path: str) -> str:
    r"""Convert a file system path to a text that any database can store.

    File names are bytes. In names that are not UTF-8, Python uses surrogates, which no database stores. Here each such
    byte becomes ``\xNN``, and each backslash is doubled.
    """
    return os.fsencode(path.replace("\\", "\\\\")).decode("utf-8", "backslashreplace")


def text_to_path(text: str) -> str:
    """Undo `path_to_text`."""

    def restore(match: re.Match[bytes]) -> bytes:
        if match[1] is None:
            return b"\\" if match[0] == b"\\\\" else b""
        return bytes([int(match[1], 16)])

    return os.fsdecode(_ESCAPED.sub(restore, text.encode("utf-8")))


def with_frame(path: str, frame: int) -> str:
    """The path of one frame of a DICOM file, as the database stores it.

    Args:
        path: of the file, from `path_to_text`.
        frame: from 1.
    """
    return f"{path}\\#{frame}"


def frame_of(path: str) -> int | None:
    """The frame that a path from `with_frame` stands for. None for a file as a whole."""
    found = _FRAME.search(path)
    return int(found[1]) if found else None


def mtime_ns_of(found: os.stat_result) -> int:
    """A file's modification time in nanoseconds, as it is recorded at submission and compared when it is read."""
    return max(-_LATEST_NS, min(found.st_mtime_ns, _LATEST_NS))


def read_file(
    real_root: str, path: str, *, size_bytes: int | None, mtime_ns: int | None, max_bytes: int
) -> FileContent:
    """Read one file of an archive.

    Args:
        real_root: the archive's folder, from `os.path.realpath`. Neither the path nor a symbolic link may lead out of
            it.
        path: relative to the root, from `path_to_text`.
        size_bytes: size at submission. None when the file was not found then.
        mtime_ns: `mtime_ns_of` the file at submission. None when the file may have been repaired since.
        max_bytes: size of the largest file that is read.

    Returns:
        The bytes and their SHA-256 in hexadecimal.

    Raises:
        ImageFaultError: ``outside_root``, ``missing``, ``unreadable``, ``too_large`` or ``changed_since_submission``.
    """
    return with_retries(
        lambda: _read_once(real_root, path, size_bytes=size_bytes, mtime_ns=mtime_ns, max_bytes=max_bytes)
    )


class _TransientError(ImageFaultError):
    """An error of a share that may be over in a moment."""


def with_retries(read: Callable[[], FileContent]) -> FileContent:
    """Read, and read again where `refused` found an error of a share that may be over in a moment."""
    for pause in _PAUSES:
        try:
            return read()
        except _TransientError:
            time.sleep(pause)
    return read()


def refused(what: str, error: OSError) -> ImageFaultError:
    """The failure of an image whose reading the operating system refused."""
    kind = _TransientError if error.errno in _TRANSIENT else ImageFaultError
    return kind(FailureCode.UNREADABLE, f"{what}: {error.strerror}")


def _read_once(
    real_root: str, path: str, *, size_bytes: int | None, mtime_ns: int | None, max_bytes: int
) -> FileContent:
    real = os.path.realpath(os.path.join(real_root, text_to_path(path)))  # noqa: PTH118 - bytes-safe, and realpath
    if os.path.commonpath((real_root, real)) != real_root:
        raise ImageFaultError(FailureCode.OUTSIDE_ROOT, _OUTSIDE)
    try:
        # O_NONBLOCK: opening a named pipe would wait for a writer. O_NOFOLLOW: the path may have become a link since.
        descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        sentence = "the file is no longer there" if size_bytes is not None else _NEVER_THERE
        raise ImageFaultError(FailureCode.MISSING, sentence) from None
    except NotADirectoryError:
        raise ImageFaultError(FailureCode.MISSING, "a part of the path is not a folder") from None
    except OSError as error:
        raise refused("the operating system refused", error) from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ImageFaultError(FailureCode.UNREADABLE, "not a regular file")
        _refuse_outside(descriptor, real_root)
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, OSError):
            raise refused("the operating system refused", error) from None
        raise
    with os.fdopen(descriptor, "rb") as file:
        if found.st_size > max_bytes:
            raise ImageFaultError(
                FailureCode.TOO_LARGE, f"the file has {found.st_size:,} bytes, the limit is {max_bytes:,}"
            )
        if mtime_ns is not None and (found.st_size, mtime_ns_of(found)) != (size_bytes, mtime_ns):
            raise ImageFaultError(
                FailureCode.CHANGED_SINCE_SUBMISSION,
                "its size or modification time is not what it was at submission",
            )
        try:
            # Not up to the limit: Python would allocate that many bytes beforehand.
            data = file.read(found.st_size + 1)
        except OSError as error:
            raise refused("reading failed", error) from None
    if len(data) != found.st_size:
        raise ImageFaultError(FailureCode.CHANGED_SINCE_SUBMISSION, "its size changed while it was read")
    frame = frame_of(path)
    return FileContent(data=data, sha256=sha256_of(data, frame), frame=frame)


def sha256_of(data: bytes, frame: int | None = None) -> str:
    """SHA-256 of a file's bytes in hexadecimal, or of the bytes and the number of one of its frames."""
    digest = hashlib.sha256(data)
    if frame is not None:
        digest.update(f"frame {frame}".encode())
    return digest.hexdigest()


def _refuse_outside(descriptor: int, real_root: str) -> None:
    """Check the opened file again: a folder on its path may have become a link meanwhile."""
    try:
        opened = str(Path(f"/proc/self/fd/{descriptor}").readlink())
    except FileNotFoundError:
        # No /proc: not Linux.
        return
    if opened.startswith("/") and os.path.commonpath((real_root, opened)) != real_root:
        raise ImageFaultError(FailureCode.OUTSIDE_ROOT, _OUTSIDE)
