"""What a save costs, as a multiple of the time that its bytes alone need to reach the disk.

`last.ckpt` is that of a ResNet-50 detector with its teacher and the optimizer's moments: about
0.8 GB. The peer writes bytes of the same number to a new file and flushes it. Both write into the
same folder, in turns, and the clock on the wall counts, since a disk does not use the processor.
`--rounds` takes more turns; the fastest of each counts.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import Figure, cost
from od_detr.checkpoints import load_checkpoint, save_checkpoint
from od_detr.run_files import RunFiles

GOAL = 1.3
TENSORS = 2000
VALUES = 100_000  # of a tensor, on average


def measure(
    rounds: int = 3, tensors: int = TENSORS, values: int = VALUES, folder: Path | None = None
) -> dict[str, Figure]:
    """Seconds to save and to load a checkpoint, and those of its bytes alone."""
    contents = blank_contents()
    contents["state_dict"] = {f"weight.{n}": torch.randn(values) for n in range(tensors)}
    with tempfile.TemporaryDirectory(dir=folder) as directory:
        run = RunFiles(Path(directory))
        save_checkpoint(contents, run)
        content = run.last.read_bytes()
        seconds: dict[str, list[float]] = {"save": [], "write": [], "load": [], "read": []}
        for _ in range(rounds):
            seconds["write"].append(_seconds(lambda: _write(content, Path(directory, "peer"))))
            seconds["save"].append(_seconds(lambda: save_checkpoint(contents, run)))
            seconds["read"].append(_seconds(lambda: torch.load(run.last, weights_only=True)))
            seconds["load"].append(_seconds(lambda: load_checkpoint(run)))
    best = {name: min(taken) for name, taken in seconds.items()}
    return {
        "save_seconds": cost(best["save"], best["write"], GOAL),
        "verified_load_seconds": cost(best["load"], best["read"], 3),
    }


def blank_contents() -> dict[str, Any]:
    """What a checkpoint holds of a run before its first step, without its weights."""
    guard = {"skipped": 0, "in_a_row": 0}
    run = {"epoch": 0, "batch": 0, "validation_due": False, "best_ap": -1.0, "rows": []}
    run |= {"seconds": 0.0, "log": {"sums": {}, "batches": None}, "validation": {}}
    return {
        "state_dict": {},
        "detector": {},
        "optimizer": {"state": {}, "param_groups": []},
        "schedule": {"last_epoch": 0},
        "scaler": {},
        "global_step": 0,
        "run": run | {"guard": guard, "steps_per_epoch": 1},
    }


def _write(content: bytes, path: Path) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    path.unlink()


def _seconds(work: Callable[[], object]) -> float:
    os.sync()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
