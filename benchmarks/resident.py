"""Main memory that a training on the CPU holds, as a multiple of what it has in use.

    python -m benchmarks.resident [--steps 500] [--keep]

A run of the recipe `od` at 256 px with batches of 4, MobileNetV1 of width 0.75 and DETR's
augmentation sees images of varying size. A thread reads every 50 ms how much memory is resident,
and how much of it is in use: what GNU's allocator has handed out, and all that is not its own
(code, libraries). The peaks of both are compared. `--keep` leaves freed memory where it is, as
training did before: the other side of the comparison, in a process of its own.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image

import benchmarks.real_data  # noqa: F401 - registers the backbone
from od_detr.options import EvalOptions, TrainOptions
from od_detr.training import loop
from od_detr.training.fit import fit

BATCH = 4
SIDES = 320, 641  # of an image, in pixels: shortest, and what is one too long
OBJECTS = 7
GOAL = 1.3
PAGE = os.sysconf("SC_PAGE_SIZE")


class _Allocator(ctypes.Structure):
    """`struct mallinfo2` of the GNU C library, in bytes."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


_mallinfo2 = ctypes.CDLL(None).mallinfo2
_mallinfo2.restype = _Allocator


def resident_bytes() -> int:
    """Main memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def allocated_bytes() -> int:
    """What the allocator has handed out."""
    found = _mallinfo2()
    return found.uordblks + found.hblkhd


class Watch:
    """The peaks of what is resident and of what is in use, in bytes."""

    def __init__(self) -> None:
        ctypes.CDLL(None).malloc_trim(0)
        self.others = resident_bytes() - allocated_bytes()
        self.resident = self.in_use = 0
        self._ended = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Reads in a thread."""
        thread = threading.Thread(target=self._read, daemon=True)
        thread.start()
        yield
        self._ended.set()
        thread.join()

    def _read(self) -> None:
        while not self._ended.wait(0.05):
            self.resident = max(self.resident, resident_bytes())
            self.in_use = max(self.in_use, self.others + allocated_bytes())


def write_images(folder: Path, images: int, sides: tuple[int, int] = SIDES) -> None:
    """A COCO data set of that many images of these sides, smooth noise with random boxes."""
    rng = np.random.default_rng(0)
    for split, number in (("train", images), ("val", BATCH)):
        (folder / split).mkdir(parents=True)
        entries, boxes = [], []
        for identity in range(1, number + 1):
            width, height = rng.integers(*sides, 2).tolist()
            entry = {"id": identity, "file_name": f"{identity}.jpg"}
            entries.append(entry | {"width": width, "height": height})
            coarse = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
            coarse.resize((width, height)).save(folder / split / entry["file_name"])
            for corner, size in rng.uniform(0.1, 0.5, (OBJECTS, 2, 2)) * (width, height):
                box = {"id": len(boxes) + 1, "image_id": identity, "category_id": 1}
                boxes.append(box | {"bbox": [*corner.tolist(), *size.tolist()]})
        document = {"images": entries, "annotations": boxes}
        document["categories"] = [{"id": 1, "name": "thing"}]
        (folder / f"{split}.json").write_text(json.dumps(document))


def options(data: Path, output: Path, epochs: int, **changes: object) -> TrainOptions:
    """A run at the size of `reproduce --scale small`."""
    chosen = {
        "backbone": "mobilenetv1_075",
        "backbone_weights": "none",
        "image_size": 256,
        "batch_size": BATCH,
        "hidden_dim": 128,
        "encoder_layers": 2,
        "decoder_layers": 3,
        "queries": 100,
        "feedforward": 512,
        "workers": 0,
        "device": "cpu",
        "epochs": epochs,
        "eval": EvalOptions(every=epochs, samples=0),
    }
    return TrainOptions(data=str(data), output=str(output), recipe="od", **chosen | changes)


def measure(
    steps: int = 500, epochs: int = 4, keep: bool = False, **changes: object
) -> dict[str, float]:
    """Peaks in bytes, their ratio, and the share of the time that giving memory back takes."""
    watch, given = Watch(), [0.0]

    def give_back() -> None:
        start = time.perf_counter()
        if not keep:
            original()
        given[0] += time.perf_counter() - start

    original = loop.give_back
    with tempfile.TemporaryDirectory() as parent, mock.patch.object(loop, "give_back", give_back):
        data = Path(parent, "data")
        write_images(data, BATCH * steps // epochs)
        chosen = options(data, Path(parent, "run"), epochs, **changes)
        start = time.perf_counter()
        with watch.running():
            fit(chosen)
        seconds = time.perf_counter() - start
    return {
        "steps": steps,
        "resident_bytes": watch.resident,
        "in_use_bytes": watch.in_use,
        "ratio": watch.resident / watch.in_use,
        "share_of_time": given[0] / seconds,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--keep", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps(measure(given.steps, keep=given.keep)))
