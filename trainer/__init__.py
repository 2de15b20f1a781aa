"""The laboratory: from HAM10000 to a bundle."""

# Before anything here imports OpenVINO: see there.
import worker  # noqa: F401
