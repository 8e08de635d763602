"""Limits of containers and jobs count as well as what the machine has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from od_detr.machine import limits

GB = 2**30


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 8 cores and 64 GB, whose control groups a test writes."""
    monkeypatch.setattr(limits, "GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(limits, "MOUNT", tmp_path / "mount")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    pages = {"SC_PHYS_PAGES": 64 * GB // 4096, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)
    return tmp_path


def settings(folder: Path, **texts: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def test_without_control_groups_the_whole_machine_counts(system: Path) -> None:
    assert (limits.cores(), limits.main_memory()) == (8, 64 * GB)
    settings(system, cgroup="0::/")
    settings(system / "mount", memory__max="max", cpu__max="max 100000")
    assert (limits.cores(), limits.main_memory()) == (8, 64 * GB)


def test_a_container_sees_its_own_group_as_the_root(system: Path) -> None:
    settings(system, cgroup="0::/")
    settings(system / "mount", memory__max=str(8 * GB), cpu__max="250000 100000")
    assert (limits.cores(), limits.main_memory()) == (3, 8 * GB)


def test_the_lowest_limit_of_a_job_and_the_groups_above_it_counts(system: Path) -> None:
    settings(system, cgroup="0::/slurm/job_7/step_0")
    job = system / "mount" / "slurm" / "job_7"
    settings(job, memory__max=str(16 * GB), cpu__max="max 100000")
    settings(job / "step_0", memory__max=str(32 * GB), cpu__max="400000 100000")
    assert (limits.cores(), limits.main_memory()) == (4, 16 * GB)


def test_the_first_version_of_control_groups(system: Path) -> None:
    settings(system, cgroup="5:memory:/job\n4:cpu,cpuacct:/job\n1:name=systemd:/job\n0::/job")
    mount = system / "mount"
    settings(mount / "memory" / "job", memory__limit_in_bytes=str(4 * GB))
    settings(mount / "memory", memory__limit_in_bytes=str(2**63 - 4096))  # no limit
    settings(mount / "cpu,cpuacct" / "job", cpu__cfs_quota_us="200000", cpu__cfs_period_us="100000")
    settings(mount / "cpu,cpuacct", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    assert (limits.cores(), limits.main_memory()) == (2, 4 * GB)
