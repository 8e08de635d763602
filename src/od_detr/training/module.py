"""One training step: losses, gradients, optimizer and teacher, from top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from lightning.fabric import Fabric
from torch import Tensor

from od_detr.objectives import total
from od_detr.options import TrainOptions
from od_detr.structures import Batch, Share
from od_detr.training.descent import Descent
from od_detr.training.randomness import image_keys, seed_batch
from od_detr.training.record.state import RunState
from od_detr.training.supervised import Supervised


class Training:
    """Trains a detector step by step.

    Args:
        fabric: devices and processes, launched.
        network: the detector and its supervision; moved to this process's device.
        options: resolved options of the run.
        state: progress and measurements, updated by each step.
    """

    def __init__(
        self, fabric: Fabric, network: Supervised, options: TrainOptions, state: RunState
    ) -> None:
        self.fabric, self.network, self.options, self.state = fabric, network, options, state
        self.wrapped = fabric.setup_module(network)
        detector, steps, device = network.detector, state.steps_per_epoch, fabric.device.type
        self.descent = Descent(detector, options, steps, device)

    def step(
        self,
        batches: Sequence[Batch],
        stop: bool = False,
        save: bool = False,
        notice: Callable[[str], None] = print,
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
        self.descent.begin()
        share = Share.of([batch.targets for batch in batches])
        losses = [self.backward(batch, share, batch is batches[-1]) for batch in batches]
        self.settle(notice)  # the step before: its verdict has arrived by now
        loss, norm = torch.stack(losses).mean(), self.descent.clipped_norm()
        images = tuple(image for batch in batches for image in batch.image_ids)
        self.descent.move(state.guard.judge(loss, norm, images, state.step + 1, stop, save))
        if teacher is not None:
            teacher.update(self.network.detector)
        state.step += 1

    def backward(self, batch: Batch, share: Share, last: bool) -> Tensor:
        """Adds a batch's gradients, exchanged between ranks after the `last` batch; its loss.

        The batches of a step are weighted so that their gradients are those of the one batch that
        they make together.
        """
        state, seed = self.state, self.options.seed
        keys = image_keys(seed, state.epoch, batch.image_ids)
        batch = replace(batch, targets=replace(batch.targets, keys=keys, share=share))
        distil = self.options.distils_at(state.step, state.steps_per_epoch)
        seed_batch(seed, state.epoch, state.batch, self.fabric.global_rank)
        with self.fabric.no_backward_sync(self.wrapped, enabled=not last):
            with self.descent.autocast():
                terms = self.wrapped(batch.to(self.fabric.device), distil)
            loss = total(terms)
            self.descent.backward(loss / share.batches)
        state.log.add({"loss": loss, **terms})
        state.batch += 1
        return loss.detach()

    def rates(self) -> dict[str, float]:
        """The last step's learning rate, the highest of all parameters, and its teacher's decay."""
        step, teacher = self.state.step, self.network.teacher
        found = {"opt/lr": self.descent.learning_rate(step)}
        return found if teacher is None else found | {"ema/decay": teacher.current_decay(step)}

    def settle(self, notice: Callable[[str], None] = print) -> None:
        """Waits for the verdict on the last step; a skipped one is shown."""
        line = self.state.guard.settle(self.network.detector.parameters())
        if line and self.fabric.global_rank == 0:
            notice(line)


def silent(_: str) -> None:
    """A `notice` of a trial: says nothing of a skipped step."""
