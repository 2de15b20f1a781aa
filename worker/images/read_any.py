"""Reading an image of a job from wherever its archive is: a folder, an archive file, a store, or a PACS."""

import os
from collections.abc import Callable
from functools import partial

from worker.images.read import FileContent, read_file, text_to_path
from worker.images.read_archive import read_member
from worker.images.read_dicomweb import DICOMWEB, read_instance
from worker.images.read_remote import is_remote, read_object

#: Reads the image at a path; keywords as `worker.images.read.read_file`.
Reader = Callable[..., FileContent]


def reader_of(root: str) -> Reader:
    """What reads the images of a job.

    Args:
        root: of the job, as the database stores it.
    """
    if root.startswith(DICOMWEB):
        return partial(read_instance, root)
    if is_remote(root):
        return partial(read_object, root)
    # Anew for each batch: a share may be mounted meanwhile.
    real = os.path.realpath(text_to_path(root))
    return partial(read_member if os.path.isfile(real) else read_file, real)  # noqa: PTH113
