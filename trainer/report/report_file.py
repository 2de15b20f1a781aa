"""The folder of a report that lies in no run's folder."""

import itertools
from pathlib import Path

#: Names what the report in a folder is about. It stays on this machine.
_ABOUT = "folder.txt"


def own_folder(where: Path, name: str, about: str) -> Path:
    """Make a folder for a report: ``name``, ``name-2`` and so on, the first that is free or about the same subject.

    Only this account can read it, because it will hold pictures of patients and names of files.

    Args:
        where: the folder to make it in.
        name: wanted for it.
        about: what the report is about.
    """
    names = itertools.chain((name,), (f"{name}-{number}" for number in itertools.count(2)))
    target = next(where / name for name in names if _about(where / name) in (None, about))
    target.mkdir(exist_ok=True)
    # One that exists already may be readable by others.
    target.chmod(0o700)
    (target / _ABOUT).write_text(about)
    return target


def _about(target: Path) -> str | None:
    """What the report in a folder is about. None where there is no folder, empty where it is not known."""
    if not target.exists():
        return None
    return (target / _ABOUT).read_text() if (target / _ABOUT).is_file() else ""
