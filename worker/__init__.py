"""The service: intake, queue, scoring, triage flags, output and monitoring."""

from importlib.metadata import version

__version__ = version("dermq")
