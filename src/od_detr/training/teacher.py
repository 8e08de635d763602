"""The teacher: a moving average of the student (section 3.2), frozen by Stop Update (3.3)."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

PAPER_DECAY = 0.9996
HORIZON_SHARE = 2500 / 89_000  # the paper's horizon as a share of its 24 epochs at batch 32


def scaled_decay(steps: int) -> float:
    """The paper's 0.9996, scaled so that its horizon is the same share of a shorter schedule."""
    return min(PAPER_DECAY, 1 - 1 / max(2.0, HORIZON_SHARE * steps))


class Average(nn.Module):
    """A detector whose weights are the exponential moving average of another's.

    Only trainable tensors are averaged, in one fused call over cached lists: frozen ones are equal
    already. Buffers (running statistics of norms) are copied. It stays in eval mode and never has a
    gradient.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = copy.deepcopy(detector).eval().requires_grad_(False)
        # A module as an attribute would be registered as a part of this one; in a tuple it is not.
        self._followed: tuple[nn.Module, ...] = ()
        self._moving: tuple[list[Tensor], list[Tensor]] = ([], [])
        self._statistics: tuple[list[Tensor], list[Tensor]] = ([], [])

    def train(self, mode: bool = True) -> Average:
        """Stays in eval mode whatever the student does."""
        return super().train(False)

    @torch.no_grad()
    def follow(self, student: nn.Module, decay: float) -> None:
        """Sets average <- decay * average + (1 - decay) * student."""
        if not self._followed or self._followed[0] is not student:
            self._pair_up(student)
        torch._foreach_lerp_(*self._moving, 1 - decay)
        if self._statistics[0]:
            torch._foreach_copy_(*self._statistics)

    def _pair_up(self, student: nn.Module) -> None:
        """Lists which tensor follows which, once."""
        pairs = zip(self.detector.parameters(), student.parameters(), strict=True)
        moving = [(own, other) for own, other in pairs if other.requires_grad]
        self._followed = (student,)
        self._moving = ([own for own, _ in moving], [other for _, other in moving])
        self._statistics = (list(self.detector.buffers()), list(student.buffers()))


class Teacher(nn.Module):
    """The EMA teacher, and after Stop Update a second average that goes on for evaluation only.

    Args:
        student: the detector to follow; copied as it is at the start.
        decay: weight of the past at each step.
        warmup: "none", "exp" (decay * (1 - exp(-step / tau))) or "mean" (at most 1 - (1 + w) /
            (step + 1 + w)).
        warmup_steps: tau or w.
    """

    def __init__(
        self,
        student: nn.Module,
        decay: float = PAPER_DECAY,
        warmup: str = "none",
        warmup_steps: float = 0.0,
    ) -> None:
        super().__init__()
        self.average = Average(student)
        self.evaluation: Average | None = None
        self.decay, self.warmup, self.warmup_steps = decay, warmup, warmup_steps
        self.steps = 0

    def get_extra_state(self) -> dict[str, int]:
        """Number of updates, and whether the teacher is stopped."""
        return {"steps": self.steps, "stopped": int(self.stopped)}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Creates the second average of a stopped teacher before its weights are loaded."""
        self.steps, self.evaluation = state["steps"], None
        if state["stopped"]:
            self.stop()

    @property
    def detector(self) -> Any:
        """The network that teaches: a `QueryDetector`, of the student's class."""
        return self.average.detector

    @property
    def evaluated(self) -> Any:
        """The network to evaluate: its average goes on after Stop Update."""
        return self.detector if self.evaluation is None else self.evaluation.detector

    @property
    def stopped(self) -> bool:
        """Whether Stop Update has frozen the teacher."""
        return self.evaluation is not None

    def stop(self) -> None:
        """Stop Update: freezes the teacher as it is; a copy goes on averaging for evaluation."""
        if self.evaluation is None:
            self.evaluation = Average(self.detector)

    def current_decay(self, step: int) -> float:
        """The decay of update number `step`, counted from 1."""
        if self.warmup == "exp":
            return self.decay * (1 - math.exp(-step / max(self.warmup_steps, 1e-9)))
        if self.warmup == "mean":
            return min(self.decay, 1 - (1 + self.warmup_steps) / (step + 1 + self.warmup_steps))
        return self.decay

    def update(self, student: nn.Module) -> None:
        """Follows one optimiser step of the student."""
        self.steps += 1
        moving = self.average if self.evaluation is None else self.evaluation
        moving.follow(student, self.current_decay(self.steps))
