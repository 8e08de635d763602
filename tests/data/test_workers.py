"""Worker processes end when their parent says so."""

from __future__ import annotations

import subprocess

import pytest

from od_detr.data.batching import BatchSampler
from od_detr.data.dataset import CocoDataset
from od_detr.data.transforms import Transform
from od_detr.data.workers import SHIELDED, loader


@pytest.mark.skipif(not SHIELDED, reason="needs Linux's sigwaitinfo")
def test_workers_leave_signals_to_their_parent(sound: dict, write) -> None:
    """A terminal and a scheduler signal every process; the parent may still want batches."""
    dataset = CocoDataset.from_folder(write(sound), "train", Transform(64, "none"))
    batches = loader(dataset, BatchSampler(3, 1), 1)
    found = iter(batches)
    read = [next(found)]
    worker = batches._iterator._workers[0]
    for name in ("INT", "TERM", "HUP"):
        subprocess.run(["kill", f"-{name}", str(worker.pid)], check=True)
    read += found
    read += batches
    assert len(read) == 6
    assert worker.is_alive()
    worker.terminate()
    worker.join(60)
    assert worker.exitcode == 0
