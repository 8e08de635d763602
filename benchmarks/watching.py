"""What it costs to watch a training: processor seconds of bar and records, as a share of the steps.

    python -m benchmarks.watching

A run of the demo's detector is trained with the bar of a terminal and TensorBoard. Its steps are
short, so that the share is higher than that of usual detectors. Processor time is counted, which
other programs hardly change.
"""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from rich.console import Console

from benchmarks.timing import counted
from od_detr.data.scenes import render_scenes
from od_detr.experiments.demo import demo_options
from od_detr.options import EvalOptions
from od_detr.training.display import displays
from od_detr.training.display.displays import Display
from od_detr.training.fit import fit
from od_detr.training.loop import Loop
from od_detr.training.record.step_log import StepLog

# What a step does for those who watch it; drawing the bar is a part of `Display.stepped`.
WATCHING = ((Display, "stepped"), (StepLog, "stepped"), (Loop, "log_step"))


def measure(images: int = 160, epochs: int = 1) -> dict[str, float]:
    """Processor seconds of each part of `WATCHING`, and of training as a whole."""
    seconds: dict[str, float] = {}
    with ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory()))
        nowhere = held.enter_context(open(os.devnull, "w"))
        render_scenes(folder / "scenes", images, 8, 128, seed=0)
        terminal = Console(file=nowhere, force_terminal=True, width=120)
        held.enter_context(patch.object(displays, "Console", lambda: terminal))
        for owner, name in WATCHING:
            held.enter_context(counted(owner, name, seconds, time.thread_time))
        held.enter_context(counted(Loop, "train_epoch", seconds, time.process_time))
        options = demo_options(folder / "scenes", folder / "run")
        watched = {"logger": "tensorboard", "workers": 0, "eval": EvalOptions(samples=0)}
        fit(replace(options, epochs=epochs, **watched))
    return seconds


if __name__ == "__main__":
    found = measure()
    whole = found.pop("Loop.train_epoch")
    for part, taken in found.items():
        print(f"{part}: {taken:.3f} s of {whole:.1f} s, {100 * taken / whole:.2f} %")
    total = sum(found.values())
    print(f"together: {total:.3f} s of {whole:.1f} s, {100 * total / whole:.2f} %")
