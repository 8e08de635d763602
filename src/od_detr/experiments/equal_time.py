"""How long an epoch of each row takes, so that rows can be trained for the same time.

The steps of all rows take turns in one process, and the shortest time of each row counts. So the
result does not depend on what else the machine is doing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from itertools import islice
from pathlib import Path
from statistics import fmean

import torch

from od_detr.dotted import with_values
from od_detr.experiments.experiment import Experiment
from od_detr.experiments.runs import commit, environment
from od_detr.experiments.tables import control_of
from od_detr.files import atomic_write
from od_detr.options import TrainOptions
from od_detr.training.loop import in_steps
from od_detr.training.module import Training
from od_detr.training.plan import assembled, planned

TURNS, STEPS = 6, 2
# Measured for rows that distil in some steps only: a step that does.
ALWAYS = {"distill.start": 0, "distill.stop": None, "distill.every": 1}


def epoch_seconds(
    rows: Iterable[Experiment], shared: TrainOptions, record: Path
) -> dict[str, float]:
    """Seconds of an epoch of these rows and of the baselines they are compared with, by name.

    Args:
        rows: the rows.
        shared: options that all runs share.
        record: JSON file that keeps the seconds. If it has those of all rows, none is measured
            again, so that a table that is continued trains as many epochs as before.
    """
    rows = list(rows)
    controls = [control for row in rows if (control := control_of(row)) is not None]
    wanted = {row.name: row for row in [*controls, *rows]}
    kept = json.loads(record.read_text())["seconds"] if record.exists() else {}
    if wanted.keys() <= kept.keys():
        return kept
    seconds = measured(wanted, shared)
    facts = {"seconds": seconds | kept, "commit": commit()}
    record.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(record) as partial:
        partial.write_text(
            json.dumps(facts | {"environment": environment(shared.device)}, indent=1)
        )
    return seconds | kept


def relative_cost(row: Experiment, seconds: Mapping[str, float]) -> float:
    """Seconds of an epoch of this row over those of its baseline; 1 for a baseline."""
    control = control_of(row)
    return 1.0 if control is None else seconds[row.name] / seconds[control.name]


def measured(rows: Mapping[str, Experiment], shared: TrainOptions) -> dict[str, float]:
    """Seconds of an average epoch of each row, weighted by the share of steps that distil."""
    runs = {name: row.options(shared, output="unwritten") for name, row in rows.items()}
    clocks = {name: Clock(with_values(run, ALWAYS)) for name, run in runs.items()}
    shares = {name: distilled_share(run, clocks[name].steps) for name, run in runs.items()}
    plain = {
        name: Clock(replace(run, recipe="qfl")) for name, run in runs.items() if shares[name] < 1
    }
    for _ in range(TURNS):
        for clock in [*clocks.values(), *plain.values()]:
            clock.tick()
    return {
        name: shares[name] * clock.epoch
        + (1 - shares[name]) * (plain[name].epoch if name in plain else 0)
        for name, clock in clocks.items()
    }


def distilled_share(options: TrainOptions, steps_per_epoch: int) -> float:
    """The share of the steps of a run that distil; 1 for a recipe that never does."""
    if not options.distils:
        return 1.0
    steps = range(options.epochs * steps_per_epoch)
    return fmean(options.distils_at(step, steps_per_epoch) for step in steps)


class Clock:
    """Takes the time of training steps of a run on its first batches; nothing is written."""

    def __init__(self, options: TrainOptions) -> None:
        with redirect_stdout(StringIO()):
            parts = assembled(planned(replace(options, workers=0)))
        self.steps, self.least = parts.state.steps_per_epoch, float("inf")
        self.device = parts.fabric.device
        self.training = Training(parts.fabric, parts.network, parts.options, parts.state)
        steps = in_steps(parts.train_batches, parts.options.accumulate)
        self.batches = list(islice(steps, STEPS))
        self.tick()  # the first steps allocate and compile
        self.least = float("inf")

    def tick(self) -> None:
        """Takes a few steps."""
        start = self._now()
        for batches in self.batches:
            self.training.step(batches)
        self.training.settle()
        self.least = min(self.least, (self._now() - start) / len(self.batches))

    def _now(self) -> float:
        """Seconds on the clock; on the CPU those of this process, which others do not lengthen."""
        if self.device.type == "cpu":
            return time.process_time()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @property
    def epoch(self) -> float:
        """Seconds of an epoch at the speed of the fastest steps."""
        return self.least * self.steps
