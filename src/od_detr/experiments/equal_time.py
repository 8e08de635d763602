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

from od_detr.dotted import with_values
from od_detr.experiments.experiment import Experiment
from od_detr.experiments.runs import commit, environment
from od_detr.experiments.tables import control_of
from od_detr.files import atomic_write
from od_detr.options import TrainOptions
from od_detr.training.cost.trial import ALWAYS, Trial
from od_detr.training.loop import in_steps
from od_detr.training.plan import planned

TURNS, STEPS = 6, 2


def epoch_seconds(
    rows: Iterable[Experiment], shared: TrainOptions, record: Path
) -> dict[str, float]:
    """Seconds of an epoch of these rows and of the baselines they are compared with, by name.

    Args:
        rows: the rows.
        shared: options that all runs share.
        record: JSON file that keeps the seconds. If it has those of all rows, none is measured
            again, so that a table that is continued trains as many epochs as before. A new row is
            recorded at its cost relative to its baseline's, in the seconds that the file has.
    """
    rows = list(rows)
    controls = [control for row in rows if (control := control_of(row)) is not None]
    wanted = {row.name: row for row in [*controls, *rows]}
    kept = json.loads(record.read_text())["seconds"] if record.exists() else {}
    if wanted.keys() <= kept.keys():
        return kept
    now = measured(wanted, shared)
    seconds = kept | {
        name: now[name] * _pace(row, kept, now) for name, row in wanted.items() if name not in kept
    }
    facts = {"seconds": seconds, "commit": commit()}
    record.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(record) as partial:
        partial.write_text(
            json.dumps(facts | {"environment": environment(shared.device)}, indent=1)
        )
    return seconds


def _pace(row: Experiment, kept: Mapping[str, float], now: Mapping[str, float]) -> float:
    """By how much the machine was slower when the baseline's kept seconds were measured."""
    control = control_of(row)
    return kept[control.name] / now[control.name] if control and control.name in kept else 1.0


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
    steps = range(options.total_epochs * steps_per_epoch)
    return fmean(options.distils_at(step, steps_per_epoch) for step in steps)


class Clock:
    """Takes the time of training steps of a run on its first batches; nothing is written."""

    def __init__(self, options: TrainOptions) -> None:
        with redirect_stdout(StringIO()):
            plan = planned(replace(options, workers=0))
        self.trial = Trial(plan)
        parts = self.trial.parts
        self.steps = parts.state.steps_per_epoch
        # On the CPU the seconds of this process, which others do not lengthen.
        on_cpu = parts.fabric.device.type == "cpu"
        self.now = time.process_time if on_cpu else time.perf_counter
        self.batches = list(islice(in_steps(parts.train_batches, parts.options.accumulate), STEPS))
        self.trial.step_seconds(self.batches)  # the first steps allocate and compile
        self.least = float("inf")

    def tick(self) -> None:
        """Takes a few steps."""
        self.least = min(self.least, self.trial.step_seconds(self.batches, clock=self.now))

    @property
    def epoch(self) -> float:
        """Seconds of an epoch at the speed of the fastest steps."""
        return self.least * self.steps
