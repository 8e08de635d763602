"""Estimates the time and the memory of a run before it starts, from a few passes of a copy."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from random import Random

import torch

from od_detr import ranks
from od_detr.data.dataset import CocoDataset
from od_detr.data.loading.batching import BatchSampler
from od_detr.data.transforms import Transform
from od_detr.objectives import total
from od_detr.training.cost.passes import ASPECT, OBJECTS, blank_batch, extrapolated, saved_bytes
from od_detr.training.descent import half_precision
from od_detr.training.plan import Parts
from od_detr.training.supervised import Supervised

SAMPLES = 100  # images whose augmented sizes are averaged
FORWARD = 1 / 3  # of a training step's time: what a detector takes to validate an image


@dataclass(frozen=True)
class Estimate:
    """What a run takes, roughly.

    Attributes:
        seconds: training and validation of the epochs that are left; loading images is not
            counted. None if the device's memory did not suffice for a step.
        bytes: weights, gradients, optimizer and what a step keeps.
    """

    seconds: float | None
    bytes: int


def estimate(parts: Parts) -> Estimate | None:
    """Runs a copy of the network on blank images; None if it would have to be compiled first.

    Neither the network nor the state of a random number generator changes, and no other process
    takes part.
    """
    options, device = parts.options, parts.fabric.device
    if options.compile:
        return None
    side = options.short_side
    with torch.random.fork_rng(), ranks.alone():
        network = copy.deepcopy(parts.network)
        each = image_bytes(network, (side, round(side * ASPECT)), options.precision)
        held = held_bytes(network) + options.device_batch * each
        area = mean_area(parts.train, parts.sampler)
        try:
            step = step_seconds(network.to(device), area, options.device_batch, options.precision)
        except torch.OutOfMemoryError:
            return Estimate(None, held)
    epochs = options.total_epochs - parts.epoch
    steps = parts.state.steps_per_epoch * options.accumulate * epochs
    detectors = 1 if network.teacher is None else 2
    images = len(parts.val) / parts.plan.place.world_size * detectors * parts.validations_left
    seconds = step * (steps + FORWARD * images / options.device_batch)
    return Estimate(seconds, held)


def image_bytes(network: Supervised, size: tuple[int, int], precision: str) -> int:
    """Bytes that a step keeps for each image of `size` (height, width); the network is on a CPU."""
    with half_precision(precision, "cpu"):
        return extrapolated(lambda small: saved_bytes(network, small), size)


def held_bytes(network: Supervised) -> int:
    """Bytes of weights, teacher, gradients and the two moments of the optimizer."""
    sizes = [(each.numel(), each.requires_grad) for each in network.detector.parameters()]
    everything = sum(size for size, _ in sizes)
    trainable = sum(size for size, trains in sizes if trains)
    copies = 1 if network.teacher is None else 2
    return 4 * (everything * copies + 3 * trainable)


def mean_area(train: CocoDataset, sampler: BatchSampler) -> float:
    """Mean area in pixels of the first epoch's images after augmentation."""
    assert isinstance(train.transform, Transform)
    rng = Random(0)
    draws = sampler.images.draws(sampler.seed, 0)
    places = [rng.choice(draws).place for _ in range(SAMPLES)]
    files = train.annotations.sizes[places].tolist()
    sizes = [train.transform.plan(height, width, rng).size for height, width in files]
    return sum(height * width for height, width in sizes) / len(sizes)


def step_seconds(network: Supervised, area: float, images: int, precision: str) -> float:
    """Seconds for losses and gradients of a batch of `images` images of `area` pixels.

    A GPU does the whole batch at once, so it is timed. On a CPU the time is proportional to the
    number of images, and about so to their pixels: it is extrapolated from one small image.
    """
    width = round((area * ASPECT) ** 0.5)
    size = (round(width / ASPECT), width)
    if next(network.parameters()).is_cuda:
        step_nanoseconds(network, size, images, precision)  # loads the kernels
        return step_nanoseconds(network, size, images, precision) / 1e9
    one = extrapolated(lambda small: step_nanoseconds(network, small, 1, precision), size)
    return images * one / 1e9


def step_nanoseconds(
    network: Supervised, size: tuple[int, int], images: int, precision: str
) -> int:
    """Nanoseconds for losses and gradients of blank images of `size` (height, width)."""
    parameter = next(network.parameters())
    batch = blank_batch(size, OBJECTS, images).to(parameter.device)
    began = time.perf_counter_ns()
    with half_precision(precision, parameter.device.type):
        loss = total(network(batch))
    loss.backward()
    if parameter.is_cuda:
        torch.cuda.synchronize(parameter.device)
    network.zero_grad()
    return time.perf_counter_ns() - began
