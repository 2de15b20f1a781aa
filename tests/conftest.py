"""What all tests share."""

from hypothesis import settings

from trainer.training.malloc import keep_freed_memory

# The same examples in every run: what is red is red because of the change. CONTRIBUTING.md says how to draw new ones.
settings.register_profile("same", derandomize=True)
settings.load_profile("same")


def pytest_configure() -> None:
    """As `dermq-train` does, for the tests that train in this process."""
    keep_freed_memory()
