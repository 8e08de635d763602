"""What to do when a device's memory is full."""

from __future__ import annotations

from contextlib import AbstractContextManager

from od_detr.devices import full_memory_explained
from od_detr.options import TrainOptions
from od_detr.run_files import RunFiles

HALF = 2  # to which the other options reduce the memory of a step, about


def memory_explained(options: TrainOptions) -> AbstractContextManager[None]:
    """Turns PyTorch's report of a full device into one line with options that need less.

    Raises:
        InputError: the device's memory did not suffice for a step.
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
    smaller = largest_divisor(options.device_batch, options.device_batch / excess)
    times = options.device_batch // smaller
    if times >= max(HALF, excess):
        ways.append(f"--batch-size {smaller} --accumulate {times * options.accumulate}")
    if not RunFiles.of(options.output).is_saved:
        ways.append(f"--image-size {max(32, int(options.short_side * excess**-0.5 / 32) * 32)}")
    if not options.checkpoint_encoder and excess <= HALF:
        ways.append("--checkpoint-encoder")
    if options.precision == "32" and excess <= HALF:
        ways.append("--precision bf16")
    return " or ".join(ways) or "a smaller --model or --backbone"


def largest_divisor(number: int, most: float) -> int:
    """The largest divisor of a number that is at most `most`, or 1."""
    return max(part for part in range(1, number + 1) if number % part == 0 and part <= max(1, most))
