"""Faults that happen inside a process; see `sitecustomize.py`, which no test imports."""

from pathlib import Path


def poison(picture: Path, fault: str) -> None:
    """Mark a JPEG, behind its end where no decoder looks, so that ``sitecustomize.py`` acts when it is decoded.

    Args:
        picture: to be marked.
        fault: ``kill``, ``exhaust``, ``loop`` or ``loop-deaf``.
    """
    picture.write_bytes(picture.read_bytes() + f"fault:{fault}".encode())
