"""``report.json``: which layout it has, and reading one that a run left."""

import json
from pathlib import Path
from typing import Any

#: Layout of ``report.json``; raised when a figure that report or card need is added.
REPORT_FORMAT = 2


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
    report: dict[str, Any] = json.loads(file.read_text())
    if (found := report.get("format")) != REPORT_FORMAT:
        raise ValueError(
            f"Received: run {run}, whose {file.name} has the layout {found}. Expected: layout {REPORT_FORMAT}; "
            f"`dermq-train evaluate {run}` makes it anew, which opens the test split once more."
        )
    return report
