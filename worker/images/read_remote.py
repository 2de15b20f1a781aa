"""Reading objects of a remote store (s3://, gs://, https://) through fsspec. Credentials come from the environment."""

import hashlib
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from db.status import FailureCode
from worker.errors import ImageFaultError
from worker.images.read import FileContent, frame_of, sha256_of, text_to_path

#: Schemes that are read, with the extra that installs what they need.
SCHEMES = {"s3": "s3", "gs": "gs", "https": "https", "http": "https"}
#: Seconds after which an attempt is given up, and pauses before the next ones.
_TIMEOUT = 60
_PAUSES = (0.5, 2.0)
_OPEN = 4
#: Bytes of the digest that stands for a version in the column of times.
_TAG_BYTES = 7


class RemoteError(ValueError):
    """A remote store cannot be used. The text says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class RemoteObject:
    """An object of a store.

    Args:
        size: in bytes. 0 where the store does not tell.
        version: number that changes with its content, from its ETag or time.
    """

    size: int
    version: int


@dataclass(frozen=True, kw_only=True)
class RemoteStore:
    """A store below one address.

    Args:
        files: fsspec's file system.
        prefix: the path below which everything lies, without a slash at its end.
    """

    files: Any
    prefix: str

    def address(self, name: str) -> str:
        """The store's own path of an object."""
        return f"{self.prefix}/{name}"

    def describe(self, entry: dict[str, Any]) -> RemoteObject:
        """Size and version, from an entry of a listing."""
        size = entry.get("size")
        tag = next((entry[key] for key in ("ETag", "etag", "md5Hash", "LastModified", "mtime") if entry.get(key)), "")
        digest = hashlib.sha256(f"{tag} {size}".encode()).digest()
        return RemoteObject(size=int(size or 0), version=int.from_bytes(digest[:_TAG_BYTES], "big"))


def is_remote(root: str) -> bool:
    """Whether a root is an address."""
    scheme, colon, _ = root.partition("://")
    return bool(colon) and scheme.isalnum()


@lru_cache(maxsize=_OPEN)
def open_store(root: str) -> RemoteStore:
    """Open a store. No connection is made yet.

    Raises:
        RemoteError: the scheme is not read, its support is not installed, or the address holds a password.
    """
    scheme, _, rest = root.partition("://")
    if scheme.lower() not in SCHEMES:
        raise RemoteError(f"{scheme}:// is not read. Give a folder, or an address with {', '.join(SCHEMES)}")
    if "@" in rest.partition("/")[0]:
        raise RemoteError(
            "an address must not hold a name or a password: it is stored. Credentials belong into the environment"
        )
    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    if scheme == "s3":
        options["config_kwargs"] = {"connect_timeout": 10, "read_timeout": _TIMEOUT, "retries": {"max_attempts": 4}}
    try:
        from fsspec.core import url_to_fs

        files, prefix = url_to_fs(root.rstrip("/"), **options)
    except ImportError:
        raise RemoteError(f"for {scheme}:// install its support: pip install 'dermq[{SCHEMES[scheme]}]'") from None
    except Exception as error:
        # Of a wrong address or wrong credentials each store raises its own classes.
        raise RemoteError(f"the store cannot be opened ({type(error).__name__})") from None
    return RemoteStore(files=files, prefix=str(prefix).rstrip("/"))


def read_object(root: str, path: str, *, size_bytes: int | None, mtime_ns: int | None, max_bytes: int) -> FileContent:
    """Read one object, as `worker.images.read.read_file` reads a file of a folder.

    Args:
        root: address that the path is relative to.
        path: from `path_to_text`.
        size_bytes: size at submission. 0 where the store did not tell.
        mtime_ns: version at submission, as `RemoteObject.version`. None when it may have been replaced since.
        max_bytes: size of the largest object that is read.

    Raises:
        ImageFaultError: ``missing``, ``unreadable``, ``too_large`` or ``changed_since_submission``.
    """
    for pause in (*_PAUSES, None):
        try:
            return _read_once(root, path, size_bytes=size_bytes, version=mtime_ns, max_bytes=max_bytes)
        except ImageFaultError:
            raise
        except FileNotFoundError:
            raise ImageFaultError(FailureCode.MISSING, "the store has no such object any more") from None
        except PermissionError:
            raise ImageFaultError(FailureCode.UNREADABLE, "the store refuses access. Check the credentials") from None
        except RemoteError as error:
            raise ImageFaultError(FailureCode.UNREADABLE, str(error)) from None
        except Exception as error:
            # Each store raises its own classes for a connection that is lost or times out.
            if pause is None:
                raise ImageFaultError(
                    FailureCode.UNREADABLE, f"the store did not answer in three attempts ({type(error).__name__})"
                ) from None
            time.sleep(pause)
    raise AssertionError


def _read_once(root: str, path: str, *, size_bytes: int | None, version: int | None, max_bytes: int) -> FileContent:
    store = open_store(root)
    address = store.address(text_to_path(path))
    found = store.describe(store.files.info(address))
    if version is not None and (found.size, found.version) != (size_bytes, version):
        raise ImageFaultError(FailureCode.CHANGED_SINCE_SUBMISSION, "the object is not what it was at submission")
    if found.size > max_bytes:
        raise ImageFaultError(FailureCode.TOO_LARGE, f"the object has {found.size:,} bytes, the limit is {max_bytes:,}")
    with store.files.open(address, "rb", cache_type="none", block_size=max_bytes + 1) as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise ImageFaultError(FailureCode.TOO_LARGE, f"the object has more than {max_bytes:,} bytes")
    if found.size and len(data) != found.size:
        raise ImageFaultError(FailureCode.CHANGED_SINCE_SUBMISSION, "its size changed while it was read")
    frame = frame_of(path)
    return FileContent(data=data, sha256=sha256_of(data, frame), frame=frame)
