"""The loop over epochs: train, save, validate, save."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice

import torch

from od_detr import ranks
from od_detr.data.counts import counted
from od_detr.detectors import DetectionTransformer
from od_detr.machine.memory import GIVE_BACK_EVERY, give_back
from od_detr.structures import Batch
from od_detr.training.display.advice import NEAR_ZERO, advice, facts_of
from od_detr.training.display.displays import display_of
from od_detr.training.display.pace import Pace
from od_detr.training.display.samples import draw_samples, sample_places
from od_detr.training.module import Training
from od_detr.training.plan import Parts
from od_detr.training.processes.signals import StopSignal
from od_detr.training.record.contents import check_finite, contents_of
from od_detr.training.record.run_directory import RunDirectory
from od_detr.training.record.step_log import StepLog
from od_detr.training.record.validation import ONLINE, TEACHER

STEPS = 50  # between two records of the loss terms


class Loop:
    """Trains the epochs of a run that are left, and keeps its directory up to date.

    An epoch is saved before its validation, and again with the result of it, so that a stop or a
    kill in between repeats the validation only.

    Args:
        parts: the run.
        training: takes its steps.
        directory: where it is saved.
        stop: whether the user asked to stop.
    """

    def __init__(
        self, parts: Parts, training: Training, directory: RunDirectory, stop: StopSignal
    ) -> None:
        self.parts, self.training, self.directory, self.stop = parts, training, directory, stop
        self.state, self.options = parts.state, parts.options
        self._saved, self._advised = time.monotonic(), False
        self.steps = StepLog(self.state.log, min(STEPS, parts.state.steps_per_epoch))
        self.steps.resumed()
        epochs, batches = self.options.total_epochs, len(parts.sampler)
        left = (epochs - self.state.epoch) * batches - self.state.batch
        pace = Pace(left, parts.validations_left)
        device = training.fabric.device
        self.display = display_of(epochs, epochs * batches, pace, device, directory.writes)

    def run(self) -> None:
        """Trains until the last epoch is validated, or until `patience` ends.

        Raises:
            Interrupted: the user asked to stop; everything is saved.
            NonFiniteError: values stayed infinite or NaN; the last save is from before.
        """
        with self.display:
            if self.state.validation_due:
                self.validate()
            while not self.finished:
                self.train_epoch()
                if self.state.validation_due:
                    self.validate()
                if self.stopping and not self.finished:
                    raise self.stop.interruption
            if self.state.epoch < self.options.total_epochs:
                self.display.say(
                    f"stopped after epoch {self.state.epoch}: "
                    f"{counted(self.state.without_gain, 'validation')} without a higher AP than "
                    f"{100 * self.state.best_ap:.1f}, which best/ has (--patience)"
                )

    def train_epoch(self) -> None:
        """Trains the rest of an epoch, appends its row and saves."""
        state, options = self.state, self.options
        self.parts.sampler.resume(state.epoch, state.batch)
        self.display.begin(state.epoch + 1)
        total = len(self.parts.sampler)
        with state.watch:
            for batches in in_steps(self.parts.train_batches, options.accumulate):
                due = self.save_due
                self.training.step(batches, self.stop.asked, due, self.display.say)
                self.display.stepped(len(batches), state.guard.last_loss)
                self.log_step(self.steps.stepped(state.step))
                if self.training.fabric.device.type == "cpu" and state.step % GIVE_BACK_EVERY == 0:
                    give_back()
                stopping, saving = self.stopping, self.saving(due)
                if (stopping or saving) and state.batch < total:
                    self.save()
                if stopping and state.batch < total:
                    raise self.stop.interruption
        self.training.settle(self.display.say)
        self.log_step(self.steps.ended())
        state.close_epoch().update(self.training.rates())
        state.validation_due = self.parts.validates(state.epoch)
        if not state.validation_due:
            self.directory.write_rows(state.rows)
        self.save()

    def validate(self) -> None:
        """Scores the detector and its teacher, completes the row, keeps the best and saves."""
        state, network = self.state, self.training.network
        detectors: dict[str, DetectionTransformer] = {ONLINE: network.detector.eval()}
        if network.teacher is not None:
            detectors[TEACHER] = network.teacher.evaluated
        share_buffers(network)
        batches = self.parts.val_batches
        self.display.begin(state.epoch)
        showing = self.display.validating(len(batches))
        with self.stop.at_once(), showing, self.training.descent.autocast():
            columns = state.validation.run(detectors, self.shown(batches))
        network.train()
        state.rows[-1].update(columns)
        state.validation_due = False
        name, ap = state.validation.best
        if state.rank_validation(ap):
            summaries = state.validation.summaries
            self.directory.write_best(detectors[name], name, state.epoch, summaries)
        self.directory.write_rows(state.rows)
        self.display.row(state.rows[-1], state.best_ap)
        self.advise()
        self.draw_samples()
        self.save()

    def log_step(self, record: tuple[int, dict[str, float]] | None) -> None:
        """Hands the means of some steps, if they are complete, to the logger."""
        if record is not None and self.directory.writes:
            step, means = record
            self.directory.logger.log(means | self.training.rates(), step)

    def advise(self) -> None:
        """Shows once what is likely if AP stays near zero."""
        state, parts = self.state, self.parts
        if self._advised or state.best_ap >= NEAR_ZERO:
            return
        steps = parts.state.steps_per_epoch * self.options.total_epochs
        pretrained = self.options.init is not None
        facts = facts_of(parts.val, state.validation.summaries, state.step, steps, pretrained)
        line = advice(facts)
        if line is not None:
            self.display.say(line)
            self._advised = True

    def draw_samples(self) -> None:
        """Draws some validation images with what the online detector found in them."""
        state, parts = self.state, self.parts
        places = sample_places(len(parts.val), self.options.eval.samples)
        if not (places and self.directory.writes):
            return
        scorer, summary = state.validation.scorers[ONLINE], state.validation.summaries[ONLINE]
        drawing = (parts.val, places, scorer.evaluator.truth, scorer.last, summary["threshold"])
        self.directory.write_samples(partial(draw_samples, *drawing), state.epoch, state.step)

    def shown(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches on this process's device."""
        for batch in batches:
            yield batch.to(self.training.fabric.device)
            self.display.validated()

    def save(self) -> None:
        """Writes `last.ckpt`.

        Raises:
            NonFiniteError: the last step was one too many, or a weight is not finite.
        """
        self.training.settle(self.display.say)
        # The verdict of the last step may still ask for the save that is made now.
        self.state.guard.save_asked = False
        contents = contents_of(self.training)
        if self.directory.writes:
            check_finite(contents)
            self.directory.write_last(contents)
        self.stop.anything_saved, self._saved = True, time.monotonic()

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train, all ranks alike: they validate the same images."""
        patience, measured = self.options.patience, self.state.best_ap >= 0
        impatient = patience is not None and measured and self.state.without_gain >= patience
        return impatient or self.state.epoch >= self.options.total_epochs

    @property
    def save_due(self) -> bool:
        """Whether `save_minutes` have passed since this process saved."""
        minutes = (time.monotonic() - self._saved) / 60
        return 0 < self.options.save_minutes <= minutes

    # Ranks hear signals and see clocks at different moments. They act after the same step, one
    # step later, when the guard's verdict has brought every rank's wish to all of them.

    @property
    def stopping(self) -> bool:
        """Whether to stop after this step, all ranks alike."""
        return self.state.guard.stop_asked if ranks.is_distributed() else self.stop.asked

    def saving(self, due: bool) -> bool:
        """Whether to save after this step, all ranks alike."""
        return self.state.guard.save_asked if ranks.is_distributed() else due


def in_steps(batches: Iterable[Batch], accumulate: int) -> Iterator[list[Batch]]:
    """Batches in groups of `accumulate`, whose gradients make one step; the last may be smaller."""
    remaining = iter(batches)
    while group := list(islice(remaining, accumulate)):
        yield group


def share_buffers(network: torch.nn.Module) -> None:
    """Gives all ranks the running statistics of the first one, which are saved."""
    if ranks.is_distributed():
        for buffer in network.buffers():
            torch.distributed.broadcast(buffer, 0)
