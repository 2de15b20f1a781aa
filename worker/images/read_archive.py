"""Reading members of a ZIP or TAR archive without unpacking it."""

import errno
import lzma
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from db.status import FailureCode
from worker.errors import ImageFaultError
from worker.images.read import FileContent, frame_of, mtime_ns_of, refused, sha256_of, text_to_path, with_retries

#: Compressions of a ZIP that are read: none, deflate, bzip2, LZMA.
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_ENCRYPTED = 0x1
#: What `zipfile` raises for damaged bytes, which may be those of a header, a name or packed data.
_ZIP_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    IndexError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    ValueError,
)
#: First bytes of a ZIP, with members and without.
_ZIP_HEADS = (b"PK\x03\x04", b"PK\x05\x06")
#: Bytes of a block of a TAR, and read at once behind its last member.
_BLOCK, _PART = 512, 1024 * 1024
#: Archives that a process keeps open.
_OPEN = 4


class NoArchiveError(ValueError):
    """A file is no archive that is read. The text says what it is instead, and what to do."""


class _DamagedMemberError(Exception):
    """A member of a ZIP cannot be unpacked."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """A file in an archive.

    Args:
        name: its path in the archive.
        size: in bytes, unpacked, as the archive declares it.
        problem: why it cannot be read, whatever is in it. None where it can.
    """

    name: str
    size: int
    problem: str | None = None


class _Zip:
    def __init__(self, path: str) -> None:
        #: Members that a later one of the same name hides.
        self.hidden = 0
        try:
            self._archive = zipfile.ZipFile(path)
            self.hidden = len(self._archive.filelist) - len(self._archive.NameToInfo)
        except _ZIP_DAMAGE:
            raise NoArchiveError("a damaged ZIP archive, or one of several parts. Copy or pack it again") from None

    def members(self) -> Iterator[Member]:
        for name in sorted(self._archive.NameToInfo):
            entry = self._archive.NameToInfo[name]
            # Not `is_dir`, which fails where a damaged name is empty.
            if not name.endswith("/"):
                yield Member(name=name, size=entry.file_size, problem=_problem_of_zip(entry))

    def head(self, name: str, size: int) -> bytes:
        """The first bytes of a member. Empty where it is damaged."""
        try:
            return self._unpack(self._archive.NameToInfo[name], size)
        except _DamagedMemberError:
            return b""

    def size(self, name: str) -> int | None:
        entry = self._archive.NameToInfo.get(name)
        return None if entry is None else entry.file_size

    def read(self, name: str, size: int) -> bytes:
        entry = self._archive.NameToInfo[name]
        if (problem := _problem_of_zip(entry)) is not None:
            raise ImageFaultError(FailureCode.UNSUPPORTED_FORMAT, problem)
        try:
            return self._unpack(entry, size + 1)
        except _DamagedMemberError:
            raise ImageFaultError(
                FailureCode.TRUNCATED, "its part of the ZIP archive is damaged (the checksum or the compression)"
            ) from None

    def _unpack(self, entry: zipfile.ZipInfo, size: int) -> bytes:
        try:
            with self._archive.open(entry) as file:
                return file.read(size)
        except _ZIP_DAMAGE:
            raise _DamagedMemberError from None
        except OSError as error:
            # Of bzip2 data, which has no number, or of a place before the file. Others are the share's.
            if error.errno not in (None, errno.EINVAL):
                raise
            raise _DamagedMemberError from None


class _Tar:
    def __init__(self, path: str) -> None:
        self._path = path
        self._places: dict[str, tuple[int, int] | None] = {}
        #: Members that a later one of the same name hides.
        self.hidden = 0
        try:
            with tarfile.open(path, "r:") as archive:
                end = 0
                for entry in archive:
                    if not entry.isdir():
                        self.hidden += entry.name in self._places
                        whole = entry.isreg() and not entry.issparse()
                        self._places[entry.name] = (entry.offset_data, entry.size) if whole else None
                    end = entry.offset_data + (0 if entry.isdir() or entry.islnk() else entry.size)
        except (tarfile.TarError, OSError, ValueError, EOFError, OverflowError):
            raise NoArchiveError("a damaged TAR archive. Copy or pack it again") from None
        # To tarfile, a damaged header is the end: the members behind it would be lost without a word.
        with Path(path).open("rb") as file:
            file.seek(-(-end // _BLOCK) * _BLOCK)
            rest = file.read(_BLOCK)
            while rest and not rest.strip(b"\0"):
                if not (more := file.read(_PART)):
                    break
                rest = more
        if len(rest) < 1 or rest.strip(b"\0"):
            raise NoArchiveError(
                f"a TAR archive that is cut short or damaged behind member number {len(self._places):,}, or several of "
                "them in one file. Copy or pack it again"
            )

    def head(self, name: str, size: int) -> bytes:
        """The first bytes of a member."""
        place = self._places[name]
        return b"" if place is None else self.read(name, min(size, place[1]))

    def members(self) -> Iterator[Member]:
        for name in sorted(self._places):
            place = self._places[name]
            problem = "it is a link, a device or a sparse file in its archive" if place is None else None
            yield Member(name=name, size=place[1] if place is not None else 0, problem=problem)

    def size(self, name: str) -> int | None:
        place = self._places.get(name)
        return None if place is None else place[1]

    def read(self, name: str, size: int) -> bytes:
        place = self._places[name]
        if place is None:
            raise ImageFaultError(FailureCode.UNREADABLE, "it is a link, a device or a sparse file in its archive")
        with Path(self._path).open("rb") as file:
            file.seek(place[0])
            return file.read(size)


def open_archive(path: str) -> "_Zip | _Tar":
    """Open an archive, or find the one that this process has open.

    Raises:
        NoArchiveError: it is no ZIP and no TAR without compression.
        OSError: it cannot be read.
    """
    found = os.stat(path)  # noqa: PTH116 - names that are not UTF-8
    return _opened(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=_OPEN)
def _opened(path: str, _size: int, _mtime_ns: int) -> "_Zip | _Tar":
    if not os.path.isfile(path):  # noqa: PTH113
        raise NoArchiveError("no regular file")
    with Path(path).open("rb") as file:
        head = file.read(512)
    if head.startswith(_ZIP_HEADS):
        return _Zip(path)
    if head[257:262] == b"ustar":
        return _Tar(path)
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")):
        raise NoArchiveError(
            "a compressed archive, in which no member can be found without unpacking all before it. Unpack it, or pack "
            "it as ZIP or as TAR without compression"
        )
    raise NoArchiveError("no ZIP and no TAR archive")


def archive_mtime_ns(path: str) -> int:
    """The archive's modification time, recorded for each of its members: a worker refuses a changed archive.

    Raises:
        OSError: it cannot be read.
    """
    return mtime_ns_of(os.stat(path))  # noqa: PTH116


def read_member(
    archive: str, path: str, *, size_bytes: int | None, mtime_ns: int | None, max_bytes: int
) -> FileContent:
    """Read one member, as `worker.images.read.read_file` reads a file of a folder.

    Args:
        archive: path of the archive.
        path: of the member, from `path_to_text`.
        size_bytes: size at submission.
        mtime_ns: of the archive at submission. None when it may have been replaced since.
        max_bytes: size of the largest member that is read.

    Raises:
        ImageFaultError: ``missing``, ``unreadable``, ``truncated``, ``too_large``, ``unsupported_format`` or
            ``changed_since_submission``.
    """
    return with_retries(
        lambda: _read_once(archive, path, size_bytes=size_bytes, mtime_ns=mtime_ns, max_bytes=max_bytes)
    )


def _read_once(archive: str, path: str, *, size_bytes: int | None, mtime_ns: int | None, max_bytes: int) -> FileContent:
    name = text_to_path(path)
    try:
        opened = open_archive(archive)
        size = opened.size(name)
        if mtime_ns is not None and (size, archive_mtime_ns(archive)) != (size_bytes, mtime_ns):
            raise ImageFaultError(FailureCode.CHANGED_SINCE_SUBMISSION, "its archive is not what it was at submission")
        if size is None:
            raise ImageFaultError(FailureCode.MISSING, "the archive has no such member")
        if size > max_bytes:
            raise ImageFaultError(
                FailureCode.TOO_LARGE, f"the member unpacks to {size:,} bytes, the limit is {max_bytes:,}"
            )
        data = opened.read(name, size)
    except FileNotFoundError:
        raise ImageFaultError(FailureCode.MISSING, "the archive is no longer there") from None
    except NoArchiveError as error:
        raise ImageFaultError(FailureCode.UNREADABLE, f"its archive is {error}") from None
    except OSError as error:
        raise refused("reading the archive failed", error) from None
    if len(data) != size:
        raise ImageFaultError(FailureCode.TRUNCATED, "its part of the archive is cut short")
    frame = frame_of(path)
    return FileContent(data=data, sha256=sha256_of(data, frame), frame=frame)


def _problem_of_zip(entry: zipfile.ZipInfo) -> str | None:
    if entry.flag_bits & _ENCRYPTED:
        return "it is encrypted in its ZIP archive. Pack it again without a password"
    if entry.compress_type not in _ZIP_METHODS:
        return f"its ZIP archive uses compression number {entry.compress_type}, which is not read. Pack it with deflate"
    return None
