"""A run that is assembled and trained for some steps, to be measured and thrown away."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from io import StringIO
from typing import TypeVar

import torch

from od_detr.structures import Batch
from od_detr.training.cost.memory import free_memory
from od_detr.training.module import Training
from od_detr.training.plan import Plan, assembled

Found = TypeVar("Found")

# Options of a run whose every step distils, if its recipe does.
ALWAYS = {"distill.start": 0, "distill.stop": None, "distill.every": 1}


class Trial:
    """Takes the time of a run's training steps. It says nothing and writes nothing.

    Attributes:
        parts: what the run consists of.
        training: its steps.

    Args:
        plan: what to train.
        frozen: see `open_detector`.
    """

    def __init__(self, plan: Plan, frozen: bool | None = None) -> None:
        with redirect_stdout(StringIO()):
            self.parts = assembled(plan, frozen)
        parts = self.parts
        self.training = Training(parts.fabric, parts.network, parts.options, parts.state)

    def step_seconds(
        self,
        steps: Iterable[list[Batch]],
        *,
        clock: Callable[[], float] = time.perf_counter,
        enough: float = float("inf"),
    ) -> float:
        """Mean seconds of the steps, of which there is at least one; trains the network.

        What `steps` takes to load its batches counts as well.

        Args:
            steps: the batches of each step.
            clock: returns the time in seconds.
            enough: seconds after which no further step begins.
        """
        self.wait()
        began, count = clock(), 0
        for batches in steps:
            self.training.step(batches)
            count += 1
            if clock() - began > enough:
                break
        self.training.settle()
        self.wait()
        return (clock() - began) / count

    def wait(self) -> None:
        """Waits until the device has done what it was asked for."""
        device = self.parts.fabric.device
        if device.type == "cuda":
            torch.cuda.synchronize(device)


def by_trial(plan: Plan, measure: Callable[[Trial], Found], frozen: bool | None = None) -> Found:
    """What `measure` finds in a trial of the plan, whose memory is free again afterwards.

    Args:
        plan: what to train.
        measure: a function of the trial.
        frozen: see `open_detector`.
    """
    trial = Trial(plan, frozen)
    device = trial.parts.fabric.device
    with trial.parts.loading():
        found = measure(trial)
    del trial
    free_memory(device)
    return found
