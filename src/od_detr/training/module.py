"""One training step: losses, gradients, optimizer and teacher, from top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor

from od_detr.objectives import total
from od_detr.options import TrainOptions
from od_detr.structures import Batch, Share, Targets
from od_detr.training.descent import Descent
from od_detr.training.nonfinite.guard import Statistics
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
        if teacher and self.options.stops_update and state.epoch >= self.options.drop_epoch:
            teacher.stop()
        self.statistics.keep()
        share = Share.of([batch.targets for batch in batches])
        losses = [self.backward(batch, share, batch is batches[-1]) for batch in batches]
        self.settle(notice)  # the step before: its verdict has arrived by now
        loss, norm = torch.stack(losses).sum(), self.descent.clipped_norm()
        images = tuple(image for batch in batches for image in batch.image_ids)
        take = state.guard.judge(loss, norm, images, state.step + 1, stop, save)
        self.descent.move(take)
        self.statistics.put_back_unless(take)
        if teacher is not None:
            teacher.update(self.network.detector)
        state.step += 1

    def backward(self, batch: Batch, share: Share, last: bool) -> Tensor:
        """Adds a batch's gradients, exchanged between ranks after the `last` batch; its loss.

        The randomness of a batch depends on nothing before it, so that a resumed run draws what an
        uninterrupted one draws. The batches of a step are weighted so that their gradients are those
        of the one batch that they make together.
        """
        state, options = self.state, self.options
        batch = replace(batch, targets=self.part(batch, share))
        distil = options.distils_at(state.step, self.steps_per_epoch)
        key = (options.seed, state.epoch, state.batch, self.fabric.global_rank)
        torch.manual_seed(hash(key) % 2**63)
        with self.fabric.no_backward_sync(self.wrapped, enabled=not last):
            with self.descent.autocast():
                terms = self.wrapped(batch.to(self.fabric.device), distil)
            loss = total(terms)
            self.descent.backward(loss / share.batches)
        state.log.add({"loss": loss, **terms})
        state.batch += 1
        return loss.detach()

    def part(self, batch: Batch, share: Share) -> Targets:
        """The targets of a batch with what they need to know of the step and the epoch."""
        seed, epoch = self.options.seed, self.state.epoch
        keys = tuple(hash((seed, epoch, image)) % 2**63 for image in batch.image_ids)
        return replace(batch.targets, keys=keys, share=share)

    def rates(self) -> dict[str, float]:
        """The last step's learning rate, the highest of all parameters, and its teacher's decay."""
        step, teacher = self.state.step, self.network.teacher
        found = {"opt/lr": self.descent.learning_rate(step)}
        return found if teacher is None else found | {"ema/decay": teacher.current_decay(step)}

    def settle(self, notice: Notice = print) -> None:
        """Waits for the verdict on the last step; a skipped one is shown."""
        line = self.state.guard.settle(self.network.detector.parameters())
        if line and self.fabric.global_rank == 0:
            notice(line)

    def state_dict(self) -> dict[str, Any]:
        """All that `last.ckpt` holds: from it a run goes on bit for bit. All ranks call this."""
        return {
            "state_dict": self.network.state_dict(),
            "detector": self.network.detector.settings,
            **self.descent.state_dict(),
            "global_step": self.state.step,
            "run": self.state.state_dict()
            | {"steps_per_epoch": self.steps_per_epoch, "accumulate": self.options.accumulate},
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Goes on from a `state_dict` of the same detector and options."""
        self.network.load_state_dict(saved["state_dict"])
        self.descent.load_state_dict(saved)
        times = self.options.accumulate / saved["run"].get("accumulate", self.options.accumulate)
        self.state.load_state_dict(saved["run"], self.fabric.device, times)
        self.state.step = saved["global_step"]
