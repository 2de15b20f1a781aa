"""What every kind of archive has in common: the limits of a path, and what is noted of a file."""

import os
from dataclasses import replace
from pathlib import Path

from db.submission import NewImage
from worker.images.read import noted_ns, text_to_path

#: Longest text in each column, in characters; the database's limits.
MAX_LENGTHS = {"path": 800, "lesion_id": 200, "patient_ref": 200, "sex": 50, "site": 200}
#: Longest path in bytes of UTF-8: a key of PostgreSQL's index holds no more than 2,704.
MAX_PATH_BYTES = 2_400


def is_too_long(path: str) -> bool:
    return len(path.encode()) > MAX_PATH_BYTES


def with_file_times(root: Path, image: NewImage) -> NewImage:
    """Note size and time of modification, by which a worker sees that a file was changed since."""
    try:
        found = os.stat(os.path.join(root, text_to_path(image.path)))  # noqa: PTH116, PTH118
    except (OSError, ValueError):
        return image
    return replace(image, size_bytes=found.st_size, modified_ns=noted_ns(found))
