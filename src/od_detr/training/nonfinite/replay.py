"""Repeats the step that stopped a run, and finds the first value in it that is not finite.

A step is a function of the weights, the seed and its place in the run, so a dump only names it. The
steps since the last checkpoint are trained again without saving anything, then the step itself is
watched.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from od_detr.errors import InputError, NonFiniteError
from od_detr.options import TrainOptions
from od_detr.structures import Batch
from od_detr.training.cost.memory import memory_explained
from od_detr.training.loop import in_steps
from od_detr.training.module import Training, silent
from od_detr.training.nonfinite.dump import Dump, read_dump
from od_detr.training.nonfinite.watch import Found, Watch, unsound_weight
from od_detr.training.plan import Parts, assembled, planned
from od_detr.training.processes.launch import start
from od_detr.training.record.contents import restore

NO_LIMIT = 2**62  # a replay passes the skipped steps before the one it looks at


@dataclass(frozen=True)
class Replayed:
    """What the repeated step showed.

    Attributes:
        step: number of the step, counted from 1.
        begun: steps of the checkpoint that the replay started from; 0 is the beginning of the run.
        images: ids of the step's images on this rank.
        found: where values are not finite for the first time; None if all are finite this time.
    """

    step: int
    begun: int
    images: tuple[int, ...]
    found: Found | None


def replay(options: TrainOptions, file: Path) -> Replayed:
    """Repeats the step of a dump from the last checkpoint of its run; writes nothing.

    Args:
        options: the run's own, as its `config.yaml` holds them.
        file: the dump, in the run's directory.

    Raises:
        InputError: the run went on since, or its data changed.
    """
    dump = read_dump(file)
    options = replace(options, output=str(file.parent), resume=True, compile=False)
    plan = planned(options)
    begun = 0 if plan.checkpoint is None else plan.checkpoint.contents["global_step"]
    if begun >= dump.step:
        raise InputError(
            f"{file}: the run went on to step {begun} since, so step {dump.step} cannot be repeated"
        )
    parts = assembled(plan)
    parts.state.guard.limit = NO_LIMIT
    team = start(plan.place)
    with team.reporting(), parts.loading(), memory_explained(options):
        parts.fabric.launch()
        team.connect()
        training = Training(parts.fabric, parts.network, parts.options, parts.state)
        if plan.checkpoint is not None:
            restore(training, plan.checkpoint.contents)
        images, found = watched(training, remaining(parts), dump, file)
    return Replayed(dump.step, begun, images, found)


def watched(
    training: Training, steps: Iterator[list[Batch]], dump: Dump, file: Path
) -> tuple[tuple[int, ...], Found | None]:
    """Takes the steps up to that of the dump, and watches that one.

    Returns:
        The images of the step on this rank, and where values are not finite for the first time.

    Raises:
        InputError: the step is not reached, or has other images.
    """
    for batches in steps:
        if training.state.step + 1 == dump.step:
            break
        training.step(batches, notice=silent)
    else:
        raise InputError(
            f"{file}: the run ends after {training.state.step} steps, before step {dump.step}; "
            "give the options and the data it began with"
        )
    images = tuple(image for batch in batches for image in batch.image_ids)
    if training.fabric.world_size == 1 and dump.images and images != dump.images:
        raise InputError(
            f"{file}: step {dump.step} had images {list(dump.images)} and would now have "
            f"{list(images)}; give the data the run began with"
        )
    before = unsound_weight(training.network, "before the step")
    with Watch(training.network) as watch:
        try:
            training.step(batches, notice=silent)
            training.settle(silent)
        except NonFiniteError:  # the guard's verdict; the watch says where it began
            return images, before or watch.first
    return images, before or watch.first or unsound_weight(training.network, "after the step")


def remaining(parts: Parts) -> Iterator[list[Batch]]:
    """The batches of each step that is left of a run, without validation."""
    state = parts.state
    while state.epoch < parts.options.total_epochs:
        parts.sampler.resume(state.epoch, state.batch)
        yield from in_steps(parts.train_batches, parts.options.accumulate)
        state.close_epoch()


def described(replayed: Replayed) -> list[str]:
    """The result as lines for a person."""
    since = f"after step {replayed.begun}" if replayed.begun else "from the beginning of the run"
    lines = [f"step {replayed.step}, images {list(replayed.images)}, repeated {since}"]
    if replayed.found is None:
        return [
            *lines,
            "all values are finite this time: data, options or the order of a GPU's sums differ",
        ]
    return [*lines, f"first not finite: {replayed.found}"]


def as_result(replayed: Replayed) -> dict[str, Any]:
    """The result as plain data, for `--json`."""
    found = replayed.found
    return {
        "step": replayed.step,
        "images": list(replayed.images),
        "module": None if found is None else found.module,
        "what": None if found is None else found.what,
    }
