"""From a path in an archive to bytes, with everything checked that a hostile or broken archive can hold."""

import hashlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from db.status import FailureCode
from worker.errors import ImageFaultError

_OUTSIDE = "the path, or a symbolic link on it, leads out of the folder that was submitted, or of --root"
_NEVER_THERE = "there was no such file at submission either; paths are relative to the job's root (--root)"
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})|\\\\")
#: Greatest time that the database's column takes, in nanoseconds; file systems hold years after 2262 too.
_LATEST_NS = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class FileContent:
    """What was read."""

    data: bytes
    sha256: str


def path_to_text(path: str) -> str:
    r"""Write a file system path so that any database takes it.

    File names are bytes. Those that are not UTF-8 (archives from old machines hold them) come out of Python with
    surrogates, which no database stores; here each such byte becomes ``\xNN`` and a backslash becomes two.
    """
    return os.fsencode(path.replace("\\", "\\\\")).decode("utf-8", "backslashreplace")


def text_to_path(text: str) -> str:
    """Undo `path_to_text`."""

    def restore(match: re.Match[bytes]) -> bytes:
        return b"\\" if match[1] is None else bytes([int(match[1], 16)])

    return os.fsdecode(_ESCAPED.sub(restore, text.encode("utf-8")))


def noted_ns(found: os.stat_result) -> int:
    """A file's time of modification in nanoseconds, as it is noted at submission and compared when it is read."""
    return max(-_LATEST_NS, min(found.st_mtime_ns, _LATEST_NS))


def read_file(root: Path, path: str, *, size_bytes: int | None, modified_ns: int | None, max_bytes: int) -> FileContent:
    """Read one file of an archive.

    Args:
        root: the archive's folder, which neither the path nor a symbolic link may leave.
        path: relative to the root, as `path_to_text` wrote it.
        size_bytes: size at submission, or None when it was not seen then.
        modified_ns: `noted_ns` of the file at submission, or None when it may be another by now.
        max_bytes: size of the largest file that is read.

    Returns:
        The bytes and their SHA-256 in hexadecimal.

    Raises:
        ImageFaultError: ``outside_root``, ``missing``, ``unreadable``, ``too_large`` or ``changed_since_submission``.
    """
    real_root = os.path.realpath(root)
    real = os.path.realpath(os.path.join(real_root, text_to_path(path)))  # noqa: PTH118 - bytes-safe, and realpath
    if os.path.commonpath((real_root, real)) != real_root:
        raise ImageFaultError(FailureCode.OUTSIDE_ROOT, _OUTSIDE)
    try:
        # Not blocking, or opening a named pipe would wait for a writer for ever; no link may have appeared since.
        descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        sentence = "there is no such file any more" if size_bytes is not None else _NEVER_THERE
        raise ImageFaultError(FailureCode.MISSING, sentence) from None
    except NotADirectoryError:
        raise ImageFaultError(FailureCode.MISSING, "a part of the path is not a folder") from None
    except OSError as error:
        raise ImageFaultError(FailureCode.UNREADABLE, f"the operating system refused: {error.strerror}") from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ImageFaultError(FailureCode.UNREADABLE, "not a regular file")
        _refuse_outside(descriptor, real_root)
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, OSError):
            raise ImageFaultError(FailureCode.UNREADABLE, f"the operating system refused: {error.strerror}") from None
        raise
    with os.fdopen(descriptor, "rb") as file:
        if found.st_size > max_bytes:
            raise ImageFaultError(
                FailureCode.TOO_LARGE, f"the file has {found.st_size:,} bytes, the limit is {max_bytes:,}"
            )
        if modified_ns is not None and (found.st_size, noted_ns(found)) != (size_bytes, modified_ns):
            raise ImageFaultError(
                FailureCode.CHANGED_SINCE_SUBMISSION,
                "its size or time of modification is not what it was at submission",
            )
        try:
            # Not up to the limit: so many bytes would be taken from memory beforehand.
            data = file.read(found.st_size + 1)
        except OSError as error:
            raise ImageFaultError(FailureCode.UNREADABLE, f"reading failed: {error.strerror}") from None
    if len(data) != found.st_size:
        raise ImageFaultError(FailureCode.CHANGED_SINCE_SUBMISSION, "its size changed while it was read")
    return FileContent(data=data, sha256=hashlib.sha256(data).hexdigest())


def _refuse_outside(descriptor: int, real_root: str) -> None:
    """Once more for what was opened: a folder may have become a link after it was looked at."""
    try:
        opened = str(Path(f"/proc/self/fd/{descriptor}").readlink())
    except FileNotFoundError:
        # No /proc: not Linux.
        return
    if opened.startswith("/") and os.path.commonpath((real_root, opened)) != real_root:
        raise ImageFaultError(FailureCode.OUTSIDE_ROOT, _OUTSIDE)
