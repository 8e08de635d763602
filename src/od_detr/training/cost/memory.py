"""What to do when a device's memory is full."""

from __future__ import annotations

import gc
from contextlib import AbstractContextManager
from dataclasses import replace

import torch

from od_detr.machine.devices import full_memory_explained
from od_detr.machine.memory import give_back
from od_detr.options import TrainOptions
from od_detr.run_files import RunFiles

HALF = 2  # to which the other options reduce the memory of a step, about


def memory_explained(options: TrainOptions) -> AbstractContextManager[None]:
    """Turns PyTorch's report of a full device into one line with options that need less.

    Raises:
        FullMemoryError: the device's memory did not suffice for a step.
    """
    return full_memory_explained(lambda: advice(options))


def advice(options: TrainOptions) -> str:
    """One line: what was too large, `remedies`, and what is saved."""
    files = RunFiles.of(options.output)
    end = f"; with --resume the run continues from {files.last}" if files.is_saved else ""
    full = f"--batch-size {options.device_batch}: the device's memory is full"
    return f"{full}; give {remedies(options)}{end}"


def remedies(options: TrainOptions, excess: float = 2.0) -> str:
    """Options that suffice where a step takes about `excess` times the memory that there is.

    A smaller batch is made up for by accumulation. A step's memory grows with the pixels, so that
    images of 0.7 times the side need half of it. A run that is continued keeps its image size.
    """
    ways = []
    smaller = with_smaller_batch(options, excess)
    if smaller is not None:
        ways.append(batch_flags(smaller))
    if not RunFiles.of(options.output).is_saved:
        ways.append(f"--image-size {max(32, int(options.short_side * excess**-0.5 / 32) * 32)}")
    if not options.checkpoint_encoder and excess <= HALF:
        ways.append("--checkpoint-encoder")
    if options.precision == "32" and excess <= HALF:
        ways.append("--precision bf16")
    return " or ".join(ways) or "a smaller --model or --backbone"


def with_smaller_batch(options: TrainOptions, excess: float = 2.0) -> TrainOptions | None:
    """The options with a batch that fits where this one takes `excess` times the memory.

    The batch is the largest divisor that fits, so that the images per step stay the same. None if
    not even a single image fits.
    """
    smaller = largest_divisor(options.device_batch, options.device_batch / excess)
    times = options.device_batch // smaller
    if times < max(HALF, excess):
        return None
    return replace(options, batch_size=smaller, accumulate=times * options.accumulate)


def batch_flags(options: TrainOptions) -> str:
    """The flags that say how the images of a step are shared."""
    return f"--batch-size {options.device_batch} --accumulate {options.accumulate}"


def free_memory(device: torch.device) -> None:
    """Releases unused memory, so that the next step finds all of it free."""
    gc.collect()
    give_back()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def largest_divisor(number: int, most: float) -> int:
    """The largest divisor of a number that is at most `most`, or 1."""
    return max(part for part in range(1, number + 1) if number % part == 0 and part <= max(1, most))
