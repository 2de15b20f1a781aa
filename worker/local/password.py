"""The password of a home's Flower, kept so that it is the same at each start."""

import contextlib
import os
import re
import secrets
import stat
from pathlib import Path

from worker.errors import SettingsError
from worker.regular_files import read_regular

PASSWORD_FILE = "flower-password"  # noqa: S105 - the name of a file
#: Only the account that made it may read it.
_PRIVATE = 0o600
#: What `secrets.token_urlsafe` gives.
_PASSWORD = re.compile(r"[\w-]{12,64}", re.ASCII)


def kept_password(home: Path) -> str:
    """The password of this home's Flower.

    Made at the first start, in a file that only this account may read. A file that others could read, or that holds
    something else, is replaced.

    Args:
        home: folder of the database and the logs.

    Raises:
        SettingsError: the file cannot be read or written.
    """
    file = home / PASSWORD_FILE
    try:
        with contextlib.suppress(FileNotFoundError):
            found = file.lstat()
            if stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode) == _PRIVATE and found.st_uid == os.getuid():
                kept = read_regular(file).decode("ascii", "replace").strip()
                if _PASSWORD.fullmatch(kept):
                    return kept
            file.unlink()
        password = secrets.token_urlsafe(12)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE), "w") as written:
            written.write(f"{password}\n")
    except OSError as error:
        raise SettingsError(
            f"The password of Flower cannot be kept in {file} ({error.strerror}). Make that folder writable, or set "
            "DERMQ_FLOWER_PASSWORD."
        ) from None
    return password
