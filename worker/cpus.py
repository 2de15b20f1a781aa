"""How many processors this process may use. `os.cpu_count` counts those of the machine."""

import math
import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")


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
    limits = [math.ceil(limit) for limit in _cgroup_limits(cgroups, own_cgroups)]
    return max(1, min([count, *limits]))


def _cgroup_limits(cgroups: Path, own_cgroups: Path) -> list[float]:
    """CPU limits in processors, of version 2 (``cpu.max``) and version 1 (``cpu.cfs_quota_us``)."""
    try:
        lines = own_cgroups.read_text().splitlines()
    except OSError:
        return []
    limits = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = cgroups if not controllers else cgroups / "cpu"
        folder = mount / path.lstrip("/")
        # Inside a container the path is often that of the host: then the limit stands at the mount point.
        for place in (folder, *folder.parents):
            limits += _limit_in(place)
            if place == mount:
                break
    return limits


def _limit_in(folder: Path) -> list[float]:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return [] if quota == "max" else [int(quota) / int(period)]
    except (OSError, ValueError):
        pass
    try:
        quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return [int(quota) / int(period)] if int(quota) > 0 else []
    except (OSError, ValueError):
        return []
