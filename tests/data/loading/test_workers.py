"""Worker processes end when their parent says so, and one that is killed is one line."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from od_detr.data.dataset import CocoDataset
from od_detr.data.loading.batching import BatchSampler
from od_detr.data.loading.workers import SHIELDED, Loader
from od_detr.data.transforms import Transform
from od_detr.errors import InputError


@pytest.mark.skipif(not SHIELDED, reason="needs Linux's sigwaitinfo")
def test_workers_leave_signals_to_their_parent(sound: dict, write) -> None:
    """A terminal and a scheduler signal every process; the parent may still want batches."""
    dataset = CocoDataset.from_folder(write(sound), "train", Transform(64, "none"))
    batches = Loader(dataset, BatchSampler(3, 1), 1)
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


@pytest.fixture
def dataset(sound: dict, write: Callable[[dict], Path]) -> CocoDataset:
    return CocoDataset.from_folder(write(sound), "train", Transform(64, "none"))


@pytest.mark.parametrize("killed", [1, 2])
def test_workers_that_are_killed_are_one_line_wherever_their_parent_is(
    dataset: CocoDataset, killed: int
) -> None:
    """The loss is reported once for each loader, in whatever the parent does at that time."""
    loaders = [Loader(dataset, BatchSampler(3, 1), 1) for _ in range(2)]
    assert [len(list(batches)) for batches in loaders] == [3, 3]
    workers = [batches._iterator._workers[0] for batches in loaders]

    def block() -> None:
        with loaders[0].watched(), loaders[1].watched():
            for worker in workers[:killed]:
                os.kill(worker.pid, signal.SIGKILL)
            time.sleep(60)  # until torch's signal handler raises

    with pytest.raises(InputError, match=r"^one of the 1 data loading workers died[^\n]*$"):
        block()
    assert not any(worker.is_alive() for worker in workers)
    signal.raise_signal(signal.SIGCHLD)  # nothing is left to report


def test_workers_end_with_their_block(dataset: CocoDataset) -> None:
    with Loader(dataset, BatchSampler(3, 1), 1).watched() as batches:
        assert len(list(batches)) == 3
        worker = batches._iterator._workers[0]
    assert worker.exitcode == 0
    assert len(list(batches)) == 3, "a loader can be read again"


def test_other_errors_of_a_block_stay(dataset: CocoDataset) -> None:
    with (
        pytest.raises(RuntimeError, match="another"),
        Loader(dataset, BatchSampler(3, 1), 1).watched(),
    ):
        raise RuntimeError("another")
