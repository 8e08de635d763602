"""What the checks against infinite values and NaN cost in a training step.

The norm of the gradients is that of clipping, so the guard does not add it. Two whole steps cannot
be compared to one per cent while other programs run. So the guard's calls are timed inside ordinary
steps, in processor seconds: it judges loss and norm, reads the verdict one step later, and keeps
the running statistics of batch norms.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from benchmarks.timing import Figure, cost, counted, one_thread
from od_detr.data.loading.batching import collate
from od_detr.data.scenes import render_scenes
from od_detr.experiments.demo import demo_options
from od_detr.training.cost.trial import Trial
from od_detr.training.nonfinite.guard import FiniteGuard, Statistics
from od_detr.training.plan import planned

CALLS = (
    (FiniteGuard, "judge"),
    (FiniteGuard, "settle"),
    (Statistics, "keep"),
    (Statistics, "put_back_unless"),
)
GOAL = 1.01
UNCOUNTED = 3  # steps, as the first ones allocate


def guarded_step(steps: int, image_size: int = 128, batch_size: int = 8) -> Figure:
    """The demo's plain step against the same step without the seconds inside the guard.

    The plain step is the shortest, so the guard's share of others is smaller.
    """
    with tempfile.TemporaryDirectory() as folder, one_thread():
        data = Path(folder, "data")
        render_scenes(data, batch_size, 1, image_size)
        options = demo_options(data, Path(folder, "run"))
        trial = Trial(planned(replace(options, recipe="baseline", batch_size=batch_size)))
        batch = collate([trial.parts.train[index] for index in range(batch_size)])
        trial.step_seconds([[batch]] * UNCOUNTED)
        spent: dict[str, float] = {}
        with ExitStack() as calls:
            for owner, name in CALLS:
                calls.enter_context(counted(owner, name, spent, time.process_time))
            seconds = trial.step_seconds([[batch]] * steps, clock=time.process_time)
    return cost(seconds, seconds - sum(spent.values()) / steps, GOAL)
