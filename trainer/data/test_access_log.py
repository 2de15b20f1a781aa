"""The test access log of a run: a test split that is consulted while choosing is no test any more."""

from datetime import UTC, datetime
from pathlib import Path

_FILE = "test-access.log"


def log_test_access(run: Path, command: str) -> None:
    """Record that a command is about to score the test split.

    Args:
        run: the run folder.
        command: which command.
    """
    with (run / _FILE).open("a") as log:
        log.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {command}\n")


def read_test_accesses(run: Path) -> list[str]:
    """Time and command of each access, oldest first."""
    path = run / _FILE
    return path.read_text().splitlines() if path.exists() else []
