"""Where a report lies: ``report.json`` and its layout, and the folder of one that is in no run's folder."""

import itertools
import json
from pathlib import Path
from typing import Any

#: Layout of ``report.json``; raised when a figure that report or card need is added.
REPORT_FORMAT = 2
#: What the report in a folder is about; it stays on this machine.
_ABOUT = "folder.txt"


def read_report(run: Path) -> dict[str, Any]:
    """The report of a run's evaluation.

    Args:
        run: a run folder after ``dermq-train evaluate``.

    Raises:
        FileNotFoundError: the run was not evaluated.
        ValueError: it was evaluated by a version whose report lacks figures of today's.
    """
    file = run / "report.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"Received: run {run} without {file.name}. Expected: a run after `dermq-train evaluate {run}`."
        )
    try:
        report: dict[str, Any] = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(
            f"Received: run {run}, whose {file.name} is cut short or was changed ({error}). Expected: as "
            f"`dermq-train evaluate {run}` writes it, which makes it anew and opens the test split once more."
        ) from None
    if (found := report.get("format")) != REPORT_FORMAT:
        raise ValueError(
            f"Received: run {run}, whose {file.name} has the layout {found}. Expected: layout {REPORT_FORMAT}; "
            f"`dermq-train evaluate {run}` makes it anew, which opens the test split once more."
        )
    return report


def own_folder(where: Path, name: str, about: str) -> Path:
    """A folder for a report, ``name`` or numbered ``name-2`` and so on: the first that is free or about the same.

    It is made for this account alone, for it will hold pictures of patients and names of files.

    Args:
        where: the folder to make it in.
        name: wanted for it.
        about: what the report is about.
    """
    names = itertools.chain((name,), (f"{name}-{number}" for number in itertools.count(2)))
    target = next(where / name for name in names if _about(where / name) in (None, about))
    target.mkdir(exist_ok=True)
    # One of an earlier version too.
    target.chmod(0o700)
    (target / _ABOUT).write_text(about)
    return target


def _about(target: Path) -> str | None:
    """What the report in a folder is about; None where there is no folder yet, empty where it is not known."""
    if not target.exists():
        return None
    return (target / _ABOUT).read_text() if (target / _ABOUT).is_file() else ""
