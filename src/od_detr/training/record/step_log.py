"""Means of the loss terms over every few steps, read without waiting for the device."""

from __future__ import annotations

import torch

from od_detr.training.record.epoch_log import EpochLog
from od_detr.transfers import HostCopy


class StepLog:
    """Reads the sums of an epoch's log every few steps, one step after their copy was begun.

    By then the verdict on that step was waited for anyway, so nothing waits for this.

    Args:
        log: sums the terms.
        every: steps between two records.
    """

    def __init__(self, log: EpochLog, every: int) -> None:
        self.log, self.every = log, every
        self._pending: tuple[int, list[str], HostCopy] | None = None
        self._before: dict[str, float] = {}

    def stepped(self, step: int) -> tuple[int, dict[str, float]] | None:
        """Step number `step` was taken; the step of the record that is complete, and its means."""
        found = self.collected()
        if step % self.every == 0 and self.log.batches is not None:
            values = torch.stack([self.log.batches, *self.log.sums.values()])
            self._pending = (step, ["", *self.log.sums], HostCopy(values))
        return found

    def collected(self) -> tuple[int, dict[str, float]] | None:
        """The record whose copy was begun, if there is one."""
        if self._pending is None:
            return None
        step, names, copy = self._pending
        now = dict(zip(names, copy.wait().tolist(), strict=True))
        gained = {name: value - self._before.get(name, 0.0) for name, value in now.items()}
        self._pending, self._before = None, now
        batches = gained.pop("")
        return step, {f"step/{name}": value / max(1.0, batches) for name, value in gained.items()}

    def ended(self) -> tuple[int, dict[str, float]] | None:
        """The epoch ends and its log starts again from 0; the last record of it."""
        found = self.collected()
        self._before = {}
        return found

    def resumed(self) -> None:
        """A run goes on inside an epoch: what was summed before belongs to no record of this."""
        if self.log.batches is not None:
            values = [self.log.batches, *self.log.sums.values()]
            self._before = dict(zip(["", *self.log.sums], map(float, values), strict=True))
