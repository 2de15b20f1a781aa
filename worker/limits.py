"""How many processors and how much memory this process may use: less than the machine has, in a container."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

from worker.errors import DermqError

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")
#: Bytes that a worker needs: for its parent process, and for each process that scores usual images.
PARENT_MEMORY, PROCESS_MEMORY = 150 * 2**20, 300 * 2**20
#: Version 1 writes a number near 2**63 where there is no limit.
_NO_LIMIT = 2**60


def available_cpus(cgroups: Path = _CGROUPS, own_cgroups: Path = _OWN_CGROUPS) -> int:
    """The least of the machine's processors, the affinity mask and the CPU limit of every cgroup above this process.

    A container with a limit of 1.5 processors counts as 2: with one process it could not use what it has.

    Args:
        cgroups: mount point of the cgroup file systems.
        own_cgroups: list of this process's cgroups, as proc(5) describes it.

    Returns:
        At least 1.
    """
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # Not Linux.
        count = os.cpu_count() or 1
    limits = [
        math.ceil(limit)
        for folder in _folders(cgroups, own_cgroups, "cpu")
        if (limit := _cpu_limit(folder)) is not None
    ]
    return max(1, min([count, *limits]))


def memory_limit(cgroups: Path = _CGROUPS, own_cgroups: Path = _OWN_CGROUPS) -> int | None:
    """The least memory limit of every cgroup above this process, in bytes. None without a limit.

    Args:
        cgroups: as for `available_cpus`.
        own_cgroups: as for `available_cpus`.
    """
    limits = [
        limit for folder in _folders(cgroups, own_cgroups, "memory") if (limit := _memory_limit(folder)) is not None
    ]
    return min(limits, default=None)


def default_concurrency() -> int:
    """Processes of a worker: as many as there are processors, and fewer where memory is limited."""
    limit = memory_limit()
    room = math.inf if limit is None else (limit - PARENT_MEMORY) // PROCESS_MEMORY
    return int(max(1, min(available_cpus(), room)))


def check_memory(concurrency: int) -> str | None:
    """Whether the memory limit allows a worker with so many processes.

    Returns:
        A warning when it is tight, None when it is enough.

    Raises:
        DermqError: not even one process has room: the kernel would kill it again and again.
    """
    limit = memory_limit()
    if limit is None or limit >= PARENT_MEMORY + concurrency * PROCESS_MEMORY:
        return None
    told = f"The memory limit of this container or service is {limit / 2**20:,.0f} MB. "
    least = (PARENT_MEMORY + PROCESS_MEMORY) / 2**20
    if limit < PARENT_MEMORY + PROCESS_MEMORY:
        raise DermqError(
            f"{told}A worker needs at least {least:,.0f} MB. Raise the limit: the kernel would kill its processes."
        )
    room = (limit - PARENT_MEMORY) // PROCESS_MEMORY
    return f"{told}That is enough for {room} processes, and DERMQ_CONCURRENCY is {concurrency}: some may be killed."


def _folders(cgroups: Path, own_cgroups: Path, controller: str) -> Iterator[Path]:
    """The cgroups that this process is in, and all above them, for a controller of version 1 and for version 2."""
    try:
        lines = own_cgroups.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        mount = cgroups if not controllers else cgroups / controller
        folder = mount / path.lstrip("/")
        # Inside a container the path is often that of the host: then the limit stands at the mount point.
        for place in (folder, *folder.parents):
            yield place
            if place == mount:
                break


def _cpu_limit(folder: Path) -> float | None:
    """In processors, of version 2 (``cpu.max``) or version 1 (``cpu.cfs_quota_us``)."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError):
        return None


def _memory_limit(folder: Path) -> int | None:
    """In bytes, of version 2 (``memory.max``) or version 1 (``memory.limit_in_bytes``)."""
    for name in ("memory.max", "memory.limit_in_bytes"):
        try:
            limit = int((folder / name).read_text())
        except (OSError, ValueError):
            continue
        return limit if limit < _NO_LIMIT else None
    return None
