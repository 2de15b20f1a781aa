"""The number of processors that this process may use."""

import os
from pathlib import Path

import pytest

from worker.cpus import available_cpus


def groups(tmp_path: Path, path: str, **limits: str) -> tuple[Path, Path]:
    """A cgroup file system of version 2 with CPU limits by folder, and this process's place in it."""
    for folder, limit in limits.items():
        place = tmp_path / "cgroup" / folder.replace("__", "/").replace("root", "")
        place.mkdir(parents=True, exist_ok=True)
        (place / "cpu.max").write_text(limit)
    own = tmp_path / "own"
    own.write_text(f"0::{path}\n")
    return tmp_path / "cgroup", own


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


@pytest.mark.usefixtures("eight")
@pytest.mark.parametrize(
    ("limits", "count"),
    [
        ({"docker__one": "200000 100000"}, 2),
        ({"docker__one": "150000 100000"}, 2),
        ({"docker__one": "50000 100000"}, 1),
        ({"docker__one": "max 100000"}, 8),
        ({"docker__one": "max 100000", "docker": "300000 100000"}, 3),
        ({"root": "400000 100000"}, 4),
        ({"elsewhere": "100000 100000"}, 8),
    ],
)
def test_a_containers_limit_counts(tmp_path: Path, limits: dict[str, str], count: int) -> None:
    assert available_cpus(*groups(tmp_path, "/docker/one", **limits)) == count


@pytest.mark.usefixtures("eight")
def test_version_1_counts_too(tmp_path: Path) -> None:
    place = tmp_path / "cgroup" / "cpu" / "docker"
    place.mkdir(parents=True)
    (place / "cpu.cfs_quota_us").write_text("250000")
    (place / "cpu.cfs_period_us").write_text("100000")
    own = tmp_path / "own"
    own.write_text("4:cpu,cpuacct:/docker\n")
    assert available_cpus(tmp_path / "cgroup", own) == 3


def test_the_affinity_mask_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5}, raising=False)
    assert available_cpus(tmp_path / "none", tmp_path / "none") == 1
