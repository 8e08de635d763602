"""The number of epochs that fit into a time, from real steps on the first batches."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from od_detr.dotted import with_values
from od_detr.errors import InputError
from od_detr.structures import Batch
from od_detr.training.cost.memory import memory_explained
from od_detr.training.cost.trial import ALWAYS, Trial, by_trial
from od_detr.training.display.pace import duration
from od_detr.training.loop import in_steps
from od_detr.training.plan import Parts, Plan
from od_detr.training.record.validation import ONLINE, TEACHER
from od_detr.training.setup.start import say

UNITS = {"s": 1, "m": 60, "h": 3600}
LONGEST = 10**8  # seconds
WARM_UP, STEPS, VALIDATED = 2, 10, 5  # steps before the timing, timed steps, timed batches
ENOUGH = 30.0  # seconds, after which warm-up and timing end with fewer steps
QUEUED = 2  # batches that each data loading worker prepares ahead
SHARE = 0.95  # of the time; the rest is for saving


def within_budget(plan: Plan, frozen: bool | None = None) -> Plan:
    """The plan with as many epochs as fit into `budget`; without a budget as it is.

    Args:
        plan: what to train.
        frozen: see `open_detector`.

    Raises:
        InputError: the budget contradicts another option or does not hold one epoch, or the
            device's memory does not suffice.
    """
    options, budget = plan.options, plan.options.budget
    if budget is None:
        return plan
    began, allowed = time.monotonic(), seconds_of(budget)
    check_budget(plan)
    with memory_explained(options):
        one = replace(plan, options=replace(options, epochs=1))
        epoch = by_trial(one, epoch_seconds, frozen)
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
    """Refuses a budget together with what decides the number of epochs or cannot be measured.

    Raises:
        InputError: naming the other option.
    """
    options = plan.options
    if options.resume:
        raise InputError("--budget: a resumed run keeps its --epochs; leave --budget out")
    if options.epochs is not None:
        raise InputError(f"--budget and --epochs {options.epochs} exclude each other; give one")
    if plan.place.world_size > 1:
        raise InputError("--budget measures a single process; give --epochs with several devices")
    if options.distils and with_values(options, ALWAYS) != options:
        raise InputError(
            "--budget measures steps that all distil; give --epochs with --distill.start, "
            "--distill.stop or --distill.every"
        )


def epoch_seconds(trial: Trial) -> float:
    """Seconds of an epoch, images loaded, and of its share of a validation; trains the network."""
    parts = trial.parts
    steps = repeated_steps(parts)
    # While the first steps take long, the workers fill a queue. Only when it was emptied once do
    # further steps wait for what loads too slowly.
    queued = -(-QUEUED * parts.train_batches.num_workers // parts.options.accumulate)
    trial.step_seconds(islice(steps, WARM_UP + queued), enough=ENOUGH)
    trained = trial.step_seconds(islice(steps, STEPS + queued), enough=ENOUGH)
    validated = validated_seconds(trial) * len(parts.val_batches) / parts.options.eval.every
    return trained * parts.state.steps_per_epoch + validated


def validated_seconds(trial: Trial) -> float:
    """Mean seconds of a batch in validation, by the detector and its teacher."""
    parts, network = trial.parts, trial.parts.network
    network.eval()
    detectors = {ONLINE: network.detector}
    if network.teacher is not None:
        detectors[TEACHER] = network.teacher.evaluated
    began, count = time.perf_counter(), 0
    with trial.training.descent.autocast():
        for batch in islice(parts.val_batches, VALIDATED):
            for name, scorer in parts.state.validation.scorers.items():
                scorer.add(detectors[name], batch.to(parts.fabric.device))
            count += 1
    return (time.perf_counter() - began) / max(1, count)


def repeated_steps(parts: Parts) -> Iterator[list[Batch]]:
    """The batches of the first epoch's steps, again and again."""
    while True:
        yield from in_steps(parts.train_batches, parts.options.accumulate)
