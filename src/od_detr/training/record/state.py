"""Everything a run remembers besides weights: where it is, and what it has measured so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from od_detr.training.nonfinite.guard import FiniteGuard
from od_detr.training.record.epoch_log import EpochLog
from od_detr.training.record.fingerprint import same_validation
from od_detr.training.record.stopwatch import Stopwatch
from od_detr.training.record.validation import Validation

PLAIN = ("epoch", "batch", "validation_due", "best_ap", "without_gain", "rows")
SECONDS = "seconds"


@dataclass
class RunState:
    """Progress and measurements of a run.

    Attributes:
        steps_per_epoch: optimizer steps an epoch, which the learning-rate schedule counts.
        accumulate: batches a step.
        epoch: whole epochs that were trained.
        batch: batches of the next epoch that were trained.
        step: optimizer steps, skipped ones included.
        validation_due: whether the last whole epoch is still to be validated.
        best_ap: highest validation AP so far, of the online detector or the teacher.
        without_gain: validations since the one whose AP became `best_ap`.
        rows: the rows of `metrics.csv`.
        data: fingerprint of the data, which a resumed run compares and does not take over.
    """

    validation: Validation
    guard: FiniteGuard
    steps_per_epoch: int = 1
    accumulate: int = 1
    data: dict[str, Any] = field(default_factory=dict)
    log: EpochLog = field(default_factory=EpochLog)
    watch: Stopwatch = field(default_factory=Stopwatch)
    epoch: int = 0
    batch: int = 0
    step: int = 0
    validation_due: bool = False
    best_ap: float = float("-inf")
    without_gain: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)

    def close_epoch(self) -> dict[str, Any]:
        """Ends an epoch: its row of `metrics.csv` so far, appended to `rows`."""
        self.epoch, self.batch = self.epoch + 1, 0
        row = {"epoch": self.epoch, "step": self.step, SECONDS: self.watch.seconds}
        row |= {f"train/{name}": mean for name, mean in self.log.means().items()}
        if self.guard.skipped:
            row["train/skipped"] = self.guard.skipped
        self.guard.skipped = 0
        self.log.clear()
        self.rows.append(row)
        return row

    def rank_validation(self, ap: float) -> bool:
        """Compares the AP of a validation with the best so far; whether it is the best now.

        Of equals, such as those without any object to find, the last is the best. They do not
        count as a gain.

        Args:
            ap: from 0 to 1, or -1 if there was no object to find.
        """
        self.without_gain = 0 if ap > self.best_ap else self.without_gain + 1
        best = ap >= self.best_ap
        self.best_ap = max(ap, self.best_ap)
        return best

    def state_dict(self) -> dict[str, Any]:
        """Plain data and tensors, all but `step`, from which `load_state_dict` goes on."""
        return {name: getattr(self, name) for name in PLAIN} | {
            "rows": [dict(row) for row in self.rows],
            "data": self.data,
            "seconds": self.watch.seconds,
            "log": self.log.state_dict(),
            "validation": self.validation.state_dict(),
            "guard": self.guard.state_dict(),
            "steps_per_epoch": self.steps_per_epoch,
            "accumulate": self.accumulate,
        }

    def load_state_dict(self, state: dict[str, Any], device: torch.device | str = "cpu") -> None:
        """Continues from the state of `state_dict`, which may have had other batches a step.

        Args:
            state: what was saved, between two steps.
            device: where losses are measured from now on.
        """
        times = self.accumulate / state.get("accumulate", self.accumulate)
        for name in PLAIN:  # a checkpoint may be older than one of them
            setattr(self, name, state.get(name, getattr(self, name)))
        self.batch = round(self.batch * times)
        self.rows = [dict(row) for row in state["rows"]]
        self.watch = Stopwatch(state["seconds"])
        self.log.load_state_dict(state["log"], device, times)
        if same_validation(state.get("data", {}), self.data):
            self.validation.load_state_dict(state["validation"])
        else:  # neither matches nor AP of other images compare to what comes
            self.best_ap, self.without_gain = float("-inf"), 0
        self.guard.load_state_dict(state["guard"])
