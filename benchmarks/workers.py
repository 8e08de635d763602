"""Main memory of the data loading workers over an epoch of a data set of COCO's size.

    python -m benchmarks.workers [--workers 8] [--images 118287]

Each page is counted once, in shares for the processes that have it (PSS), so copies that the
workers make of the annotations show, however slowly. Decoding is left out: each image is grey and
has the size that its entry says. The figures are bytes of all workers together, after each tenth
of the epoch.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from multiprocessing import active_children
from pathlib import Path
from unittest import mock

import torch

from benchmarks.loading import IMAGES, write_set
from od_detr.data.dataset import CocoDataset
from od_detr.data.loading.batching import BatchSampler
from od_detr.data.loading.workers import Loader
from od_detr.data.transforms import Transform

BATCH = 16
PARTS = 10  # of the epoch, after each of which memory is read
GOAL = 100e6  # bytes of growth


def shared_bytes(process: int) -> int:
    """Proportional set size of a process."""
    text = Path(f"/proc/{process}/smaps_rollup").read_text()
    return sum(1024 * int(size) for size in re.findall(r"^Pss:\s+(\d+)", text, re.MULTILINE))


def measure(workers: int = 8, images: int = IMAGES["train"][0]) -> dict[str, object]:
    """Bytes of all workers together, once all have begun and after each tenth of the epoch."""
    with tempfile.TemporaryDirectory() as parent:
        data = Path(parent)
        boxes = images * IMAGES["train"][1] // IMAGES["train"][0]
        write_set(data, {"train": (images, boxes), "val": (1, 1)})
        with mock.patch("od_detr.data.dataset.read_image", _grey):
            used = _used(CocoDataset.from_folder(data, "train", Transform(32, "flip")), workers)
    growth = used[-1] - used[0]
    return {"workers": workers, "images": images, "bytes": used, "growth": growth, "goal": GOAL}


def _used(dataset: CocoDataset, workers: int) -> list[int]:
    """The reading starts when every worker has prepared two batches."""
    sampler = BatchSampler(len(dataset), BATCH)
    batches = Loader(dataset, sampler, workers)
    step, used = max(1, len(sampler) // PARTS), []
    for number, _ in enumerate(batches, 1):
        if number == 2 * workers or number % step == 0:
            used.append(sum(shared_bytes(each.pid) for each in active_children() if each.pid))
    return used


def _grey(_: str, size: tuple[int, int]) -> torch.Tensor:
    return torch.full((3, *size), 114, dtype=torch.uint8)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--images", type=int, default=IMAGES["train"][0])
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps(measure(given.workers, given.images)))
