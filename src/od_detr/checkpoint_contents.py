"""What a checkpoint must hold, as types: checked before any of it is used."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from torch import Tensor

Count = Annotated[int, msgspec.Meta(ge=0)]


class Optimizer(msgspec.Struct):
    """Moments by number of parameter, and the groups of these numbers."""

    state: dict[int, dict[str, Tensor]]
    param_groups: list[dict[str, Any]]


class Schedule(msgspec.Struct):
    """Where the learning-rate schedule is."""

    last_epoch: Count


class Log(msgspec.Struct):
    """Sums of an epoch's loss terms so far."""

    sums: dict[str, Tensor]
    batches: Tensor | None


class Guard(msgspec.Struct):
    """Skipped steps."""

    skipped: Count
    in_a_row: Count


class Run(msgspec.Struct):
    """Progress and measurements."""

    epoch: Count
    batch: Count
    validation_due: bool
    best_ap: float
    rows: list[dict[str, Any]]
    seconds: float
    log: Log
    validation: dict[str, dict[str, Tensor]]
    guard: Guard
    steps_per_epoch: Count


class Contents(msgspec.Struct):
    """Everything in a checkpoint; further entries are ignored."""

    state_dict: dict[str, Any]
    detector: dict[str, Any]
    optimizer: Optimizer
    schedule: Schedule
    scaler: dict[str, Any]
    global_step: Count
    run: Run


def what_is_wrong(contents: Any) -> str:
    """The first entry that is missing or of another type, in words; empty if all are right."""
    try:
        msgspec.convert(contents, Contents)
    except msgspec.ValidationError as error:
        return str(error).replace("`", "'")
    return ""
