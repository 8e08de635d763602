"""What to do when a device's memory is full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from od_detr.errors import InputError
from od_detr.options import TrainOptions
from od_detr.run_files import RunFiles


@contextmanager
def memory_explained(options: TrainOptions) -> Iterator[None]:
    """Turns PyTorch's report of a full device into one line with options that need less.

    Raises:
        InputError: the device's memory did not suffice for a step.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_full(error):
            raise
        raise InputError(advice(options)) from error


def is_full(error: BaseException) -> bool:
    """Whether an error reports that memory is full, of a GPU or of the host."""
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or "can't allocate memory" in str(error)


def advice(options: TrainOptions) -> str:
    """One line: what was too large, `remedies`, and what is saved."""
    files = RunFiles.of(options.output)
    end = f"; with --resume the run continues from {files.last}" if files.is_saved else ""
    full = f"--batch-size {options.device_batch}: the device's memory is full"
    return f"{full}; give {remedies(options)}{end}"


def remedies(options: TrainOptions) -> str:
    """Options that about halve the memory of a step.

    A smaller batch is made up for by accumulation. A step's memory grows with the pixels, so that
    images of 0.7 times the side need half of it. A run that is continued keeps its image size.
    """
    ways, smaller = [], largest_divisor(options.device_batch)
    if (times := options.device_batch // smaller) > 1:
        ways.append(f"--batch-size {smaller} --accumulate {times * options.accumulate}")
    if not RunFiles.of(options.output).is_saved:
        ways.append(f"--image-size {max(32, round(options.short_side * 0.7 / 32) * 32)}")
    if not options.checkpoint_encoder:
        ways.append("--checkpoint-encoder")
    if options.precision == "32":
        ways.append("--precision bf16")
    return " or ".join(ways)


def largest_divisor(number: int) -> int:
    """The largest divisor below the number; 1 has none but itself."""
    return next((number // part for part in range(2, number + 1) if number % part == 0), number)
