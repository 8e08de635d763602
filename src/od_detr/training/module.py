"""One training step: losses, gradients, optimizer and teacher, from top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor

from od_detr.objectives import total
from od_detr.options import TrainOptions
from od_detr.structures import Batch
from od_detr.training.descent import Descent
from od_detr.training.guard import Statistics
from od_detr.training.record.state import RunState
from od_detr.training.supervised import Supervised

Notice = Callable[[str], None]


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
        self.descent = Descent(network.detector, options, steps_per_epoch, fabric.device.type)
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
        are; schedule and teacher go on. `notice` is called one step later, and `stop` and `save` of
        any rank reach all of them as `state.guard.stop_asked` and `save_asked` then.

        Raises:
            NonFiniteError: too many steps in a row were skipped.
        """
        state, teacher = self.state, self.network.teacher
        self.network.recipe.distil = state.step >= self.options.distill.start
        if teacher and self.options.stops_update and state.epoch >= self.options.drop_epoch:
            teacher.stop()
        self.statistics.keep()
        losses = [self.backward(batch, batch is batches[-1]) for batch in batches]
        self.settle(notice)  # the step before: its verdict has arrived by now
        loss, norm = torch.stack(losses).sum(), self.descent.clipped_norm()
        images = tuple(image for batch in batches for image in batch.image_ids)
        take = state.guard.judge(loss, norm, images, state.step + 1, stop, save)
        self.descent.move(take)
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
            with self.descent.autocast():
                terms = self.wrapped(batch.to(self.fabric.device))
            loss = total(terms)
            self.descent.backward(loss / options.accumulate)
        state.log.add({"loss": loss, **terms})
        state.batch += 1
        return loss.detach()

    def settle(self, notice: Notice = print) -> None:
        """Waits for the verdict on the last step; a skipped one is shown."""
        line = self.state.guard.settle(self.network.detector.parameters())
        if line and self.fabric.global_rank == 0:
            notice(line)

    def state_dict(self) -> dict[str, Any]:
        """All that `last.ckpt` holds: from it a run goes on bit for bit."""
        return {
            "state_dict": self.network.state_dict(),
            **self.descent.state_dict(),
            "global_step": self.state.step,
            "run": self.state.state_dict() | {"steps_per_epoch": self.steps_per_epoch},
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Goes on from a `state_dict` of the same detector and options."""
        self.network.load_state_dict(saved["state_dict"])
        self.descent.load_state_dict(saved)
        self.state.load_state_dict(saved["run"], self.fabric.device)
        self.state.step = saved["global_step"]
