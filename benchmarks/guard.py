"""What the checks against infinite values and NaN cost in a training step.

The norm of the gradients is that of clipping, so it is no cost of theirs. Two whole steps cannot be
compared to one per cent while other programs run. So the guard's calls are timed inside ordinary
steps, in processor seconds: it judges loss and norm, reads the verdict one step later, and keeps
the running statistics of batch norms.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.timing import Figure, cost, one_thread
from od_detr.data.batching import collate
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
        with timed_calls() as spent:
            seconds = trial.step_seconds([[batch]] * steps, clock=time.process_time)
    return cost(seconds, seconds - sum(spent) / steps, GOAL)


@contextmanager
def timed_calls() -> Iterator[list[float]]:
    """The processor seconds of each of the guard's calls inside the block."""
    spent: list[float] = []

    def timed(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            start = time.process_time()
            try:
                return original(*arguments, **named)
            finally:
                spent.append(time.process_time() - start)

        return call

    with ExitStack() as patches:
        for owner, name in CALLS:
            patches.enter_context(mock.patch.object(owner, name, timed(getattr(owner, name))))
        yield spent
