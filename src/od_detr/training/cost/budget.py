"""The number of epochs that fit into a time, from real steps on the first batches."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from itertools import islice

from od_detr.errors import InputError
from od_detr.options import TrainOptions
from od_detr.structures import Batch
from od_detr.training.display.pace import duration
from od_detr.training.loop import in_steps
from od_detr.training.module import Training
from od_detr.training.plan import Parts, Plan, assembled
from od_detr.training.record.validation import ONLINE, TEACHER
from od_detr.training.setup.start import say

UNITS = {"s": 1, "m": 60, "h": 3600}
LONGEST = 10**8  # seconds
WARM_UP, STEPS, VALIDATED = 2, 10, 5  # steps before the timing, timed steps, timed batches
ENOUGH = 30.0  # seconds, after which the timing ends with fewer steps
SHARE = 0.95  # of the time; the rest is for saving


def within_budget(plan: Plan, frozen: bool | None = None) -> Plan:
    """The plan with as many epochs as fit into `budget`; without a budget as it is.

    Args:
        plan: what to train.
        frozen: see `open_detector`.

    Raises:
        InputError: the budget contradicts another option, or does not hold one epoch.
    """
    options, budget = plan.options, plan.options.budget
    if budget is None:
        return plan
    began, allowed = time.monotonic(), seconds_of(budget)
    check_budget(plan)
    epoch = epoch_seconds(trial(plan, frozen))
    epochs = int(SHARE * (allowed - (time.monotonic() - began)) / epoch)
    if epochs < 1:
        raise InputError(
            f"--budget {budget}: one epoch takes about {duration(epoch)} (h:mm:ss); give more "
            "time, a smaller --image-size or a cheaper --recipe"
        )
    say(
        f"--budget {budget}: an epoch takes about {duration(epoch)} (h:mm:ss) with its "
        f"validation, so --epochs is {epochs}"
    )
    return replace(plan, options=replace(options, epochs=epochs))


def seconds_of(budget: str) -> float:
    """Seconds of a text such as 2h, 90m or 3600s.

    Raises:
        InputError: it is none, or not above 0.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", budget, re.ASCII)
    seconds = float(found[1]) * UNITS[found[2]] if found else 0.0
    if not 0 < seconds <= LONGEST:
        raise InputError(f"--budget must be a time such as 2h, 90m or 3600s (got {budget!r})")
    return seconds


def check_budget(plan: Plan) -> None:
    """Refuses a budget beside what decides the number of epochs or cannot be measured.

    Raises:
        InputError: naming the other option.
    """
    options = plan.options
    if options.resume:
        raise InputError("--budget: a resumed run keeps its --epochs; leave --budget out")
    if options.epochs != TrainOptions.epochs:
        raise InputError(f"--budget and --epochs {options.epochs} exclude each other; give one")
    if plan.place.world_size > 1:
        raise InputError("--budget measures a single process; give --epochs with several devices")


def trial(plan: Plan, frozen: bool | None = None) -> Parts:
    """The run, assembled to be measured and thrown away."""
    with redirect_stdout(StringIO()):
        return assembled(replace(plan, options=replace(plan.options, epochs=1)), frozen)


def epoch_seconds(parts: Parts) -> float:
    """Seconds of an epoch, images loaded, and of its share of a validation; trains the network."""
    options, network = parts.options, parts.network
    training = Training(parts.fabric, network, options, parts.state)
    steps = repeated_steps(parts)
    timed_steps(training, islice(steps, WARM_UP))
    trained = timed_steps(training, islice(steps, STEPS)) * parts.state.steps_per_epoch
    network.eval()
    detectors = {ONLINE: network.detector}
    if network.teacher is not None:
        detectors[TEACHER] = network.teacher.evaluated
    began, count = time.monotonic(), 0
    with training.descent.autocast():
        for batch in islice(parts.val_batches, VALIDATED):
            for name, scorer in parts.state.validation.scorers.items():
                scorer.add(detectors[name], batch.to(parts.fabric.device))
            count += 1
    validated = (time.monotonic() - began) / max(1, count) * len(parts.val_batches)
    return trained + validated / options.eval.every


def repeated_steps(parts: Parts) -> Iterator[list[Batch]]:
    """The batches of the first epoch's steps, again and again."""
    while True:
        yield from in_steps(parts.train_batches, parts.options.accumulate)


def timed_steps(training: Training, steps: Iterator[list[Batch]]) -> float:
    """Mean seconds of a step, its images loaded; ends after `ENOUGH` seconds."""
    began, count = time.monotonic(), 0
    for batches in steps:
        training.step(batches)
        count += 1
        if time.monotonic() - began > ENOUGH:
            break
    training.settle()
    return (time.monotonic() - began) / count
