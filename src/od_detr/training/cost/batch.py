"""`--batch-size auto`: the largest batch that fits, accumulated to a stated number of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import takewhile

import torch

from od_detr.data.counts import counted
from od_detr.data.transforms import Transform
from od_detr.dotted import with_values
from od_detr.errors import InputError
from od_detr.options import TrainOptions
from od_detr.options.config_file import read_config
from od_detr.ranks import Ranks
from od_detr.training.cost.estimate import Estimate, held_bytes, image_bytes
from od_detr.training.cost.passes import blank_batch
from od_detr.training.cost.trial import ALWAYS, Trial, by_trial
from od_detr.training.display.start import memory_of, memory_used
from od_detr.training.module import silent
from od_detr.training.plan import Plan
from od_detr.training.setup.start import say

TOTAL = 16  # images of an optimizer step on all devices, as in the paper
STEPS = 50  # of an epoch, at least: a small data set has fewer images in a step
SHARE = 0.9  # of the memory; the rest is for what varies
TRIED = 2  # steps of each batch: the second one begins with the optimizer's moments
# The trial is a process of its own, on one device, whose every step distils if the recipe does.
ON_ITS_OWN = {"batch_size": 1, "epochs": 1, "compile": False, "devices": 1, "nodes": 1, **ALWAYS}


def with_batch_size(plan: Plan, frozen: bool | None = None) -> Plan:
    """The plan with its number of images for each device and step: the user's, or what fits.

    All devices together get `TOTAL` images a step, or fewer of a small data set. Each gets the
    largest batch of its share that its memory holds, and accumulates the rest. `accumulate`
    multiplies the images of a step, as it always does. A process that was started by the first one
    takes what that has written to `config.yaml`.

    Args:
        plan: what to train.
        frozen: see `open_detector`.

    Raises:
        InputError: a launcher started several processes, which could not agree.
    """
    options, place = plan.options, plan.place
    if options.batch_size is not None:
        return plan
    if place.other_launcher or place.nodes > 1:
        raise InputError(
            f"--batch-size auto: is tried by one process, and there are {place.world_size} of "
            f"{place.launcher}; give a number"
        )
    if not place.is_chief:
        chosen = read_config(TrainOptions, plan.files.config)
        shares = {name: chosen[name] for name in ("batch_size", "accumulate")}
        return replace(plan, options=replace(options, **shares))
    alone = replace(plan, place=Ranks(), options=with_values(options, ON_ITS_OWN))
    images, share, held = by_trial(alone, lambda trial: shared(trial, place.world_size), frozen)
    batch = max(1, held)
    accumulate = options.accumulate * share // batch
    few = f"an epoch has only {counted(images, 'image')}, so " if images < TOTAL * STEPS else ""
    holds = "at once" if held == share else f"of which its memory holds {held} at once"
    say(
        f"--batch-size auto: {few}each device gets {counted(share, 'image')} for a step, {holds}: "
        f"--batch-size is {batch} and --accumulate {accumulate}"
    )
    return replace(plan, options=replace(options, batch_size=batch, accumulate=accumulate))


def shared(trial: Trial, processes: int) -> tuple[int, int, int]:
    """Images of an epoch, of a step for each device, and of these what its memory holds at once."""
    images = len(trial.parts.sampler.images)
    share = images_for_each(images, processes)
    sizes = [1 << power for power in range(share.bit_length())]
    with fitting(trial) as fits:
        return images, share, max(takewhile(fits, sizes), default=0)


def images_for_each(images: int, processes: int) -> int:
    """The images of a step for each process, a power of two.

    Args:
        images: images of an epoch.
        processes: how many share the step.
    """
    wanted = min(TOTAL, images // STEPS) // processes
    return 1 << max(0, wanted.bit_length() - 1)


@contextmanager
def fitting(trial: Trial) -> Iterator[Callable[[int], bool]]:
    """A function that says whether `SHARE` of the device's memory holds a batch of so many images.

    They are as large as a batch can be: padded to squares of the longest side, and each with as
    many objects as the fullest image has.
    """
    device = trial.parts.fabric.device
    if device.type != "cuda":
        yield held_by_estimate(trial)
        return
    torch.cuda.set_per_process_memory_fraction(SHARE, device)
    try:
        yield lambda images: held_in_trial(trial, images)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


def held_in_trial(trial: Trial, images: int) -> bool:
    """Whether real steps of the largest images do not run out of memory."""
    train = trial.parts.train
    batch = blank_batch(largest_size(trial), max(1, train.most_targets), images)
    try:
        for _ in range(TRIED):
            trial.training.step([batch], notice=silent)
        trial.training.settle(silent)
        trial.wait()
    except torch.OutOfMemoryError:
        return False
    return True


def held_by_estimate(trial: Trial) -> Callable[[int], bool]:
    """Whether main memory holds a step of so many of the largest images, as worked out."""
    network, main = trial.parts.network, torch.device("cpu")
    held = held_bytes(network)
    each = image_bytes(network, largest_size(trial), trial.parts.options.precision)
    present = memory_of(main)

    def fits(images: int) -> bool:
        needed = memory_used(Estimate(None, held + images * each), main)
        return present is None or needed <= SHARE * present

    return fits


def largest_size(trial: Trial) -> tuple[int, int]:
    """(height, width) of a batch that has the widest and the most upright image."""
    transform = trial.parts.train.transform
    assert isinstance(transform, Transform)
    return transform.longest, transform.longest
