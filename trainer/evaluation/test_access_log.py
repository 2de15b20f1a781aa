"""The log of a run's openings of the sealed test split: one that is looked at while choosing is no test."""

from datetime import UTC, datetime
from pathlib import Path

_FILE = "test-openings.log"


def log_opening(run: Path, by: str) -> None:
    """Note that the test split is about to be looked at.

    Args:
        run: the run folder.
        by: which command.
    """
    with (run / _FILE).open("a") as log:
        log.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {by}\n")


def openings_of(run: Path) -> list[str]:
    """Time and command of each opening so far, oldest first."""
    path = run / _FILE
    return path.read_text().splitlines() if path.exists() else []
