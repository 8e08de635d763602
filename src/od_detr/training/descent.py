"""From gradients to weights: clipping, the optimizer, its schedule, and fp16's loss scale."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from od_detr.detectors import DetectionTransformer
from od_detr.options import TrainOptions
from od_detr.training.nonfinite.guard import Statistics
from od_detr.training.optimizer import clip_gradients, make_optimizer, make_schedule

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def half_precision(precision: str, device: str) -> AbstractContextManager[Any]:
    """Computes in the half precision that was chosen, if one was.

    Args:
        precision: 32, bf16 or fp16.
        device: type of the device, such as "cuda".
    """
    half = HALF.get(precision)
    return torch.autocast(device, half) if half else nullcontext()


class Descent:
    """Moves the weights of a detector along their gradients.

    Args:
        detector: whose weights move; on its device already.
        options: resolved options of the run.
        steps_per_epoch: optimizer steps an epoch, which the learning-rate schedule counts.
        device: type of the device, such as "cuda".
    """

    def __init__(
        self,
        detector: DetectionTransformer,
        options: TrainOptions,
        steps_per_epoch: int,
        device: str,
    ) -> None:
        self.detector, self.device, self.clip = detector, device, options.opt.clip
        self.precision = options.precision
        half = options.precision == "fp16"
        self.scaler = torch.GradScaler(device, enabled=half)
        self.optimizer = make_optimizer(detector, options.opt, options.architecture, fused=not half)
        drop, warmup = options.drop_epoch, options.opt.warmup
        self.schedule = make_schedule(self.optimizer, steps_per_epoch, drop, warmup)
        self.statistics = Statistics(detector)

    def autocast(self) -> AbstractContextManager[Any]:
        """Half precision, if it was chosen; matching and losses leave it again."""
        return half_precision(self.precision, self.device)

    def begin(self) -> None:
        """Before the first forward pass of a step: keeps what a step that is not taken changes."""
        self.statistics.keep()

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of a loss, scaled up under fp16."""
        self.scaler.scale(loss).backward()

    def clipped_norm(self) -> Tensor:
        """The norm of all gradients before they are clipped to `opt.clip`, a scalar.

        Under fp16 an overflow is not a fault: the scaler skips the step by itself and halves its
        scale. Only once the scale is below 1 the gradient itself is not finite.
        """
        self.scaler.unscale_(self.optimizer)
        norm = clip_gradients(self.detector, self.clip)
        if not self.scaler.is_enabled():
            return norm
        scale = self.scaler.scale(torch.ones_like(norm))
        return torch.where(scale < 1, norm, torch.zeros_like(norm))

    def move(self, take: Tensor) -> None:
        """Moves the weights if `take` is 1; if it is 0, the step leaves no trace in the detector.

        Args:
            take: a scalar that the optimizer reads on the device.
        """
        if not self.scaler.is_enabled():
            self.optimizer.found_inf = 1 - take  # pyright: ignore[reportAttributeAccessIssue]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.schedule.step()
        self.statistics.put_back_unless(take)

    def learning_rate(self, step: int) -> float:
        """The highest rate of any parameter at optimizer step `step`, counted from 1."""
        return max(map(float, self.schedule.base_lrs)) * self.schedule.lr_lambdas[0](step - 1)

    def state_dict(self) -> dict[str, Any]:
        """Moments, schedule and scale."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Goes on from a `state_dict`; other entries of `saved` are ignored.

        The state may be of a run in another precision, whose optimizer was fused or was not.
        """
        moments, fused = saved["optimizer"], self.optimizer.defaults["fused"]
        groups = [{**group, "fused": fused} for group in moments["param_groups"]]
        self.optimizer.load_state_dict({**moments, "param_groups": groups})
        self.schedule.load_state_dict(saved["schedule"])
        if self.scaler.is_enabled() and saved["scaler"]:
            self.scaler.load_state_dict(saved["scaler"])
