"""What all tests share."""

from trainer.memory import keep_freed_memory


def pytest_configure() -> None:
    """As `dermq-train` does: tests that train in this process take half of the time."""
    keep_freed_memory()
