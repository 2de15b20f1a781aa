"""What all sources have in common: the limits of recorded texts, and the size and time recorded for a file."""

import hashlib
import os
from pathlib import Path

from db.status import FailureCode
from worker.images.read import mtime_ns_of, text_to_path

#: Greatest length of each text, in characters: the limits of the database.
MAX_LENGTHS = {"path": 800, "lesion_id": 200, "patient_ref": 200, "sex": 50, "site": 200}
#: Greatest length of a path in bytes of UTF-8: a key of PostgreSQL's index holds at most 2,704.
MAX_PATH_BYTES = 2_400
#: Characters that are kept of either end of a path that is too long.
_SHOWN_OF_LONG = 150


def is_too_long(path: str) -> bool:
    """Whether a path has more characters or bytes than the database can store and index."""
    return len(path) > MAX_LENGTHS["path"] or len(path.encode()) > MAX_PATH_BYTES


def shorten(path: str) -> tuple[str, tuple[FailureCode, str]]:
    """The name under which an image is recorded whose path is too long, and the failure with which it ends.

    Args:
        path: from `path_to_text`.
    """
    digest = hashlib.sha256(path.encode()).hexdigest()[:8]
    sentence = (
        f"its path has {len(path):,} characters and {len(path.encode()):,} bytes, where {MAX_LENGTHS['path']} and "
        f"{MAX_PATH_BYTES:,} are allowed. Move it to a shorter path and submit it again"
    )
    return f"{path[:_SHOWN_OF_LONG]}…{path[-_SHOWN_OF_LONG:]} ({digest})", (FailureCode.UNREADABLE, sentence)


def size_and_time(root: Path, path: str) -> tuple[int | None, int | None]:
    """Size and modification time of an image's file, or None for both. A worker refuses a file that changed since.

    Args:
        root: folder that the path is relative to.
        path: from `path_to_text`.
    """
    try:
        found = os.stat(os.path.join(root, text_to_path(path)))  # noqa: PTH116, PTH118 - names that are not UTF-8
    except (OSError, ValueError):
        return None, None
    return found.st_size, mtime_ns_of(found)
