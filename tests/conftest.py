"""What all tests share."""

from trainer.training.malloc import keep_freed_memory


def pytest_configure() -> None:
    """As `dermq-train` does, for the tests that train in this process."""
    keep_freed_memory()
