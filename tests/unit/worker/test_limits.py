"""How many processors and how much memory this process may use."""

import os
from pathlib import Path

import pytest

from worker import limits as limits_module
from worker.errors import DermqError
from worker.limits import available_cpus, check_memory, default_concurrency, memory_limit


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


@pytest.mark.parametrize(
    ("own", "files", "limit"),
    [
        ("0::/docker/one", {"docker/one/memory.max": "536870912"}, 2**29),
        ("0::/docker/one", {"docker/one/memory.max": "max", "docker/memory.max": "1073741824"}, 2**30),
        ("0::/docker/one", {"memory.max": "268435456"}, 2**28),
        ("0::/docker/one", {"docker/one/memory.max": "max"}, None),
        ("4:memory:/docker", {"memory/docker/memory.limit_in_bytes": "536870912"}, 2**29),
        ("4:memory:/docker", {"memory/docker/memory.limit_in_bytes": "9223372036854771712"}, None),
        ("0::/docker", {}, None),
    ],
)
def test_the_memory_limit_of_a_container(tmp_path: Path, own: str, files: dict[str, str], limit: int | None) -> None:
    for name, content in files.items():
        (tmp_path / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cgroup" / name).write_text(content + "\n")
    (tmp_path / "own").write_text(own + "\n")
    assert memory_limit(tmp_path / "cgroup", tmp_path / "own") == limit


@pytest.mark.usefixtures("eight")
@pytest.mark.parametrize(("megabytes", "processes"), [(None, 8), (16_384, 8), (1_100, 3), (460, 1), (100, 1)])
def test_processes_fit_into_memory(monkeypatch: pytest.MonkeyPatch, megabytes: int | None, processes: int) -> None:
    monkeypatch.setattr(limits_module, "memory_limit", lambda: None if megabytes is None else megabytes * 2**20)
    monkeypatch.setattr(limits_module, "available_cpus", lambda: 8)
    assert default_concurrency() == processes


def test_a_limit_below_what_a_worker_needs_is_an_error_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits_module, "memory_limit", lambda: 200 * 2**20)
    with pytest.raises(DermqError, match=r"memory limit .* is 200 MB. A worker needs at least 450 MB. Raise the limit"):
        check_memory(1)
    monkeypatch.setattr(limits_module, "memory_limit", lambda: 800 * 2**20)
    assert check_memory(2) is None
    warning = check_memory(4)
    assert warning is not None
    assert "enough for 2 processes, and DERMQ_CONCURRENCY is 4" in warning
