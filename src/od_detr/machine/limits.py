"""What this process may use of the machine, also inside a container or a job of a cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import ceil
from pathlib import Path

GROUPS, MOUNT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def cores() -> int:
    """The processor cores that this process may use, at least 1."""
    known = hasattr(os, "sched_getaffinity")
    present = len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1
    return min([present, *_core_limits()])


def main_memory() -> int | None:
    """Bytes of main memory that this process may use; None where the system does not say."""
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" not in names or "SC_PAGE_SIZE" not in names:
        return None
    return min([os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *_memory_limits()])


def _core_limits() -> Iterator[int]:
    """`docker run --cpus 2.5` counts as 3 cores."""
    for folder in _groups("cpu"):
        quota, _, period = _setting(folder / "cpu.max").partition(" ")
        if not quota:  # version 1 of the control groups
            quota = _setting(folder / "cpu.cfs_quota_us")
            period = _setting(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period):
            yield max(1, ceil(int(quota) / int(period)))


def _memory_limits() -> Iterator[int]:
    for folder in _groups("memory"):
        limit = _setting(folder / "memory.max") or _setting(folder / "memory.limit_in_bytes")
        if limit.isdigit():
            yield int(limit)


def _groups(controller: str) -> Iterator[Path]:
    """The folders of this process's control group and of those above it; none but on Linux."""
    for line in _setting(GROUPS).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mount = MOUNT / controllers if controllers else MOUNT
        group = mount / path.lstrip("/")
        yield from (each for each in (group, *group.parents) if each.is_relative_to(mount))


def _setting(file: Path) -> str:
    """The text of a file of the system, empty where there is none."""
    try:
        return file.read_text().strip()
    except OSError:
        return ""
