"""The teacher: an exponential moving average of the student (section 3.2), frozen by Stop Update (section 3.3)."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from od_detr.detectors import DetectionTransformer

PAPER_DECAY = 0.9996
HORIZON_SHARE = 2500 / 89_000  # the paper's horizon as a share of its 24 epochs at batch 32


def scaled_decay(steps: int) -> float:
    """The paper's 0.9996, or for a shorter schedule the decay with the same horizon as a share of training."""
    return min(PAPER_DECAY, 1 - 1 / max(2.0, HORIZON_SHARE * steps))


class Average(nn.Module):
    """A detector whose weights follow another's as an exponential moving average.

    Only trainable tensors are averaged, by one fused call over cached lists: frozen ones are equal already.
    Buffers (running statistics of live norms) are copied. It stays in eval mode and never has a gradient.
    """

    def __init__(self, detector: DetectionTransformer) -> None:
        super().__init__()
        self.detector = copy.deepcopy(detector).eval().requires_grad_(False)
        self._followed: tuple[
            DetectionTransformer, ...
        ] = ()  # in a tuple, or the student would become a part of this module
        self._moving: tuple[list[Tensor], list[Tensor]] = ([], [])
        self._statistics: tuple[list[Tensor], list[Tensor]] = ([], [])

    def train(self, mode: bool = True) -> Average:
        """Stays in eval mode whatever the student does."""
        return super().train(False)

    @torch.no_grad()
    def follow(self, student: DetectionTransformer, decay: float) -> None:
        """average <- decay * average + (1 - decay) * student."""
        if not self._followed or self._followed[0] is not student:
            self._pair_up(student)
        torch._foreach_lerp_(*self._moving, 1 - decay)
        if self._statistics[0]:
            torch._foreach_copy_(*self._statistics)

    def _pair_up(self, student: DetectionTransformer) -> None:
        """Lists once which tensor follows which."""
        trainable = [parameter.requires_grad for parameter in student.parameters()]
        self._followed = (student,)
        self._moving = (
            [
                mine
                for mine, moves in zip(self.detector.parameters(), trainable, strict=True)
                if moves
            ],
            [theirs for theirs in student.parameters() if theirs.requires_grad],
        )
        self._statistics = (list(self.detector.buffers()), list(student.buffers()))


class Teacher(nn.Module):
    """The EMA teacher, and after Stop Update a second average that goes on for evaluation only.

    Args:
        student: the detector to follow; copied as it is at the start.
        decay: weight of the past at each step.
        warmup: "none"; "exp" (decay * (1 - exp(-step / tau))) or "mean" (at most 1 - (1 + w) / (step + 1 + w)),
            with tau or w in `warmup_steps`.
    """

    def __init__(
        self,
        student: DetectionTransformer,
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
        return {"steps": self.steps, "stopped": int(self.stopped)}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Called before the averages are loaded, so that a stopped teacher finds room for its second one."""
        self.steps, self.evaluation = state["steps"], None
        if state["stopped"]:
            self.stop()

    @property
    def detector(self) -> DetectionTransformer:
        """The network that teaches."""
        return self.average.detector

    @property
    def evaluated(self) -> DetectionTransformer:
        """The average worth evaluating: it never stops following."""
        return self.detector if self.evaluation is None else self.evaluation.detector

    @property
    def stopped(self) -> bool:
        return self.evaluation is not None

    def stop(self) -> None:
        """Stop Update: the teacher is frozen as it is; a copy goes on averaging for evaluation."""
        if self.evaluation is None:
            self.evaluation = Average(self.detector)

    def current_decay(self, step: int) -> float:
        """The decay of update number `step`, counted from 1."""
        if self.warmup == "exp":
            return self.decay * (1 - math.exp(-step / max(self.warmup_steps, 1e-9)))
        if self.warmup == "mean":
            return min(self.decay, 1 - (1 + self.warmup_steps) / (step + 1 + self.warmup_steps))
        return self.decay

    def update(self, student: DetectionTransformer) -> None:
        """Follows one optimiser step of the student."""
        self.steps += 1
        moving = self.average if self.evaluation is None else self.evaluation
        moving.follow(student, self.current_decay(self.steps))
