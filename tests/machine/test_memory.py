"""Freed memory leaves the process."""

from __future__ import annotations

import torch

from od_detr.machine.memory import give_back, peak_resident, resident


def test_freed_memory_leaves_the_process() -> None:
    held = [torch.ones(20_000) for _ in range(2_000)]  # 160 MB in pieces that are not mapped
    last = held[-1]  # keeps the top of the heap, so that the rest is a gap below it
    del held
    before = resident()
    give_back()
    assert resident() < before - 100e6
    assert len(last) == 20_000
    assert resident() < peak_resident() - 100e6, "what was taken and given back does not count"
