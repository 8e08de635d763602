"""Main memory and open files of a long training, which must stay level.

    python -m benchmarks.level [--steps 2000]

A run of the recipe `od` of a tiny detector, images of one size and one epoch. What is
resident and how many descriptors are open is read in every tenth step, and printed after each
tenth of the run.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from unittest import mock

import torch

from benchmarks.gpu.scale import TINY
from benchmarks.resident import BATCH, options, resident_bytes, write_images
from od_detr.training import loop
from od_detr.training.fit import fit

PARTS = 10
SMALL = {
    "backbone": "resnet18",
    "backbone_options": TINY,
    "image_size": 64,
    "augment": "flip",
    "hidden_dim": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "queries": 12,
    "feedforward": 64,
    "num_levels": 3,
}


def measure(steps: int = 2000) -> dict[str, object]:
    """Bytes that are resident and descriptors that are open, after each tenth of the steps."""
    read: list[tuple[int, int]] = []

    def give_back() -> None:
        original()
        read.append((resident_bytes(), len(list(Path("/proc/self/fd").iterdir()))))

    original = loop.give_back
    with tempfile.TemporaryDirectory() as parent, mock.patch.object(loop, "give_back", give_back):
        data = Path(parent, "data")
        write_images(data, BATCH * steps, sides=(64, 65))
        fit(options(data, Path(parent, "run"), epochs=1, **SMALL))
    every = max(1, len(read) // PARTS)
    resident, descriptors = zip(*read[every - 1 :: every], strict=True)
    return {"steps": steps, "resident_bytes": resident, "descriptors": descriptors}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    torch.set_num_threads(1)
    print(json.dumps(measure(parser.parse_args().steps)))
