"""Freed memory leaves the process."""

from __future__ import annotations

from pathlib import Path

import torch

from od_detr.training.main_memory import give_back


def resident() -> int:
    """Bytes of main memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_freed_memory_leaves_the_process() -> None:
    held = [torch.ones(20_000) for _ in range(2_000)]  # 160 MB in pieces that are not mapped
    last = held[-1]  # keeps the top of the heap, so that the rest is a gap below it
    del held
    before = resident()
    give_back()
    assert resident() < before - 100e6
    assert len(last) == 20_000
