"""From options to a trained run directory: planned, assembled, trained."""

from __future__ import annotations

import atexit
import dataclasses
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from od_detr.dotted import flat
from od_detr.errors import FullMemoryError
from od_detr.machine.devices import choose_device
from od_detr.options import TrainOptions
from od_detr.training.cost.batch import with_batch_size
from od_detr.training.cost.budget import within_budget
from od_detr.training.cost.estimate import estimate
from od_detr.training.cost.memory import (
    batch_flags,
    free_memory,
    memory_explained,
    with_smaller_batch,
)
from od_detr.training.display.start import opening_lines
from od_detr.training.loop import Loop
from od_detr.training.module import Training
from od_detr.training.nonfinite.dump import dumping
from od_detr.training.plan import Parts, assembled, planned
from od_detr.training.processes.launch import start
from od_detr.training.processes.signals import StopSignal
from od_detr.training.record.contents import restore
from od_detr.training.record.run_config import plain, write_config
from od_detr.training.record.run_directory import RunDirectory
from od_detr.training.setup.start import say


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        directory: where it is.
        summaries: full metrics of the last validation, of "online" and "teacher"; empty if a
            resumed run had nothing left to validate.
        rows: the rows of `metrics.csv`.
        stop_asked: whether the user asked to stop when nothing was left to train.
    """

    directory: Path
    summaries: dict[str, dict[str, Any]]
    rows: list[dict[str, Any]]
    stop_asked: bool = False


def fit(options: TrainOptions) -> Run:
    """Trains a detector and returns the finished run.

    If a step does not fit into the memory of a single device, the run continues from where it was
    saved last, with at most half of the images at once and the same number of images per step.

    Raises:
        InputError: data, options or a checkpoint to resume are wrong.
        FullMemoryError: a step does not fit into memory, and no smaller batch can be tried.
        NonFiniteError: losses, gradients or weights stayed infinite or NaN.
        Interrupted: the user stopped the run; everything is saved.
    """
    parts = assembled(within_budget(with_batch_size(planned(options))))
    while True:
        try:
            return trained(parts)
        except FullMemoryError:
            smaller = with_smaller_batch(parts.options)
            if smaller is None or parts.plan.place.world_size > 1:
                raise
        # The error and the parts held the tensors of the step.
        del parts
        free_memory(choose_device(smaller.device))
        say(f"The device's memory is full. Continuing with {batch_flags(smaller)}.")
        parts = assembled(planned(replace(smaller, resume=True)))


def trained(parts: Parts) -> Run:
    """Trains what is left of a run, and keeps its directory up to date.

    Raises:
        FullMemoryError: a step does not fit into memory.
        NonFiniteError: losses, gradients or weights stayed infinite or NaN.
        Interrupted: the user stopped the run; everything is saved.
    """
    options, state, plan = parts.options, parts.state, parts.plan
    facts = {
        "category_ids": list(parts.train.category_ids),
        "image_size": options.image_size,
        "recipe": options.recipe,
    }
    directory = RunDirectory(
        plan.files, parts.train.classes, facts, plan.place.is_chief, options.logger
    )
    with ExitStack() as held:
        if directory.writes:
            held.enter_context(plan.locked())
            write_config(options, plan.files.config)
            directory.tidy(plan.checkpoint)
            for line in opening_lines(parts, None if parts.is_finished else estimate(parts)):
                print(line)
        team = start(plan.place)
        stop = held.enter_context(StopSignal(plan.files.directory).listening())
        with team.reporting(), parts.loading(), stop.kept(), memory_explained(options), directory:
            directory.logger.log_options(flat(plain(dataclasses.asdict(options))))
            parts.fabric.launch()
            team.connect()
            training = Training(parts.fabric, parts.network, options, state)
            if plan.checkpoint is not None:
                restore(training, plan.checkpoint.contents)
                stop.anything_saved = True
            with dumping(plan.files, directory.writes):
                Loop(parts, training, directory, stop).run()
            parts.fabric.barrier()  # until the first process has written everything
        atexit.register(team.wait)
    return Run(plan.files.directory, state.validation.summaries, state.rows, stop.asked)
