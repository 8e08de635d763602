"""One training step: losses, gradients, optimizer and teacher, from top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from od_detr.detectors import DetectionTransformer
from od_detr.objectives import Terms, total
from od_detr.options import TrainOptions
from od_detr.structures import Batch
from od_detr.training.guard import Statistics
from od_detr.training.optimizer import clip_gradients, make_optimizer, make_schedule
from od_detr.training.recipe import Recipe
from od_detr.training.record.state import RunState
from od_detr.training.teacher import Teacher

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
Notice = Callable[[str], None]


class Supervised(nn.Module):
    """A detector and the recipe that supervises it: from a batch to its weighted loss terms.

    It is what distributed training wraps, and what `last.ckpt` holds the weights of: those of the
    detector and of the teacher that follows it.
    """

    def __init__(
        self, detector: DetectionTransformer, recipe: Recipe, teacher: Teacher | None
    ) -> None:
        super().__init__()
        self.detector, self.recipe, self.teacher = detector, recipe, teacher

    def forward(self, batch: Batch) -> Terms:
        """Weighted loss terms of a batch; their sum is minimised."""
        return self.recipe.losses(self.detector, batch)


class Training:
    """Trains a detector step by step; everything that `last.ckpt` holds is collected here.

    Args:
        fabric: devices and processes, launched.
        network: the detector and its supervision; moved to this process's device.
        options: resolved options of the run.
        steps_per_epoch: optimizer steps an epoch, which the learning-rate schedule counts.
        state: progress and measurements, updated by each step.
    """

    def __init__(
        self,
        fabric: Fabric,
        network: Supervised,
        options: TrainOptions,
        steps_per_epoch: int,
        state: RunState,
    ) -> None:
        self.fabric, self.network, self.options, self.state = fabric, network, options, state
        self.steps_per_epoch = steps_per_epoch
        self.wrapped = fabric.setup_module(network)
        half = options.precision == "fp16"
        self.scaler = torch.amp.GradScaler(fabric.device.type, enabled=half)  # pyright: ignore[reportPrivateImportUsage]
        self.optimizer = make_optimizer(
            network.detector, options.opt, options.architecture, fused=not half
        )
        drop, warmup = options.drop_epoch, options.opt.warmup
        self.schedule = make_schedule(self.optimizer, steps_per_epoch, drop, warmup)
        self.statistics = Statistics(network.detector)

    def step(
        self,
        batches: Sequence[Batch],
        stop: bool = False,
        save: bool = False,
        notice: Notice = print,
    ) -> None:
        """Takes one optimizer step on the batches whose gradients it accumulates (normally one).

        A step whose loss or gradient is not finite on any rank leaves weights and moments as they
        are; schedule and teacher go on. `notice` is told one step later, and `stop` and `save` of
        any rank reach all of them as `state.guard.stop_asked` and `save_asked` then.

        Raises:
            NonFinite: too many steps in a row were skipped.
        """
        state, teacher = self.state, self.network.teacher
        self.network.recipe.distil = state.step >= self.options.distill.start
        if teacher and self.options.stops_update and state.epoch >= self.options.drop_epoch:
            teacher.stop()
        self.statistics.keep()
        losses = [self.backward(batch, batch is batches[-1]) for batch in batches]
        self.settle(notice)  # the step before: its verdict has arrived by now
        norm = self.clipped_norm()
        image_ids = tuple(image for batch in batches for image in batch.image_ids)
        take = state.guard.judge(
            torch.stack(losses).sum(), norm, image_ids, state.step + 1, stop, save
        )
        self.update(take)
        self.statistics.put_back_unless(take)
        if teacher is not None:
            teacher.update(self.network.detector)
        state.step += 1

    def backward(self, batch: Batch, last: bool) -> Tensor:
        """Adds a batch's gradients, exchanged between ranks after the `last` batch; its loss.

        The randomness of a batch depends on nothing before it, so that a resumed run draws what an
        uninterrupted one draws.
        """
        state, options = self.state, self.options
        key = (options.seed, state.epoch, state.batch, self.fabric.global_rank)
        torch.manual_seed(hash(key) % 2**63)
        with self.fabric.no_backward_sync(self.wrapped, enabled=not last):
            with self.autocast():
                terms = self.wrapped(batch.to(self.fabric.device))
            loss = total(terms)
            self.scaler.scale(loss / options.accumulate).backward()
        state.log.add({"loss": loss, **terms})
        state.batch += 1
        return loss.detach()

    def clipped_norm(self) -> Tensor:
        """The norm of all gradients before they are clipped to `opt.clip`, a scalar.

        Under fp16 an overflow is no fault: the scaler skips the step by itself and halves its
        scale. Only once the scale is below 1 the gradient itself is not finite.
        """
        self.scaler.unscale_(self.optimizer)
        norm = clip_gradients(self.network.detector, self.options.opt.clip)
        if not self.scaler.is_enabled():
            return norm
        scale = self.scaler.scale(torch.ones_like(norm))
        return torch.where(scale < 1, norm, torch.zeros_like(norm))

    def update(self, take: Tensor) -> None:
        """Moves the weights where `take` is 1; the fused optimizer reads it on the device."""
        if not self.scaler.is_enabled():
            self.optimizer.found_inf = 1 - take  # pyright: ignore[reportAttributeAccessIssue]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.schedule.step()

    def settle(self, notice: Notice = print) -> None:
        """Waits for the verdict on the last step; a skipped one is shown."""
        line = self.state.guard.settle(self.network.detector.parameters())
        if line and self.fabric.global_rank == 0:
            notice(line)

    def autocast(self) -> AbstractContextManager[Any]:
        """Half precision, if it was chosen; matching and losses leave it again."""
        half = HALF.get(self.options.precision)
        return torch.autocast(self.fabric.device.type, half) if half else nullcontext()

    def state_dict(self) -> dict[str, Any]:
        """All that `last.ckpt` holds: from it a run goes on bit for bit."""
        return {
            "state_dict": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "global_step": self.state.step,
            "run": self.state.state_dict() | {"steps_per_epoch": self.steps_per_epoch},
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Goes on from a `state_dict` of the same detector and options."""
        self.network.load_state_dict(saved["state_dict"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        if self.scaler.is_enabled() and saved["scaler"]:
            self.scaler.load_state_dict(saved["scaler"])
        self.state.load_state_dict(saved["run"], self.fabric.device)
        self.state.step = saved["global_step"]
