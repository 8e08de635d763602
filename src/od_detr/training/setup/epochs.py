"""The number of epochs of a run whose user gives none."""

from __future__ import annotations

from dataclasses import replace

from od_detr.options import TrainOptions
from od_detr.options.train import DEFAULT_EPOCHS
from od_detr.training.setup.start import say

# Optimizer steps that a run takes at least: a new transformer, and one that `--init` has trained.
# docs/training.md says what supports them.
FROM_NEW, FROM_TRAINED = 3000, 2000
MOST = 100  # epochs, of however few images


def default_epochs(steps_per_epoch: int, trained: bool) -> int:
    """The paper's 24 epochs, or as many more as reach the least number of steps, up to 100.

    Args:
        steps_per_epoch: optimizer steps an epoch.
        trained: whether the run starts from a trained detector.
    """
    least = FROM_TRAINED if trained else FROM_NEW
    return max(DEFAULT_EPOCHS, min(MOST, -(-least // steps_per_epoch)))


def with_epochs(options: TrainOptions, steps_per_epoch: int) -> TrainOptions:
    """The options with a number of epochs: the user's, or the default, which it says.

    Args:
        options: the run's options.
        steps_per_epoch: optimizer steps an epoch.
    """
    if options.epochs is not None:
        return options
    trained = options.init is not None
    epochs = default_epochs(steps_per_epoch, trained)
    why = "the paper's schedule"
    if epochs > DEFAULT_EPOCHS:
        least = FROM_TRAINED if trained else FROM_NEW
        start = "a trained detector" if trained else "a new detector"
        why = f"{start} needs about {least} steps, and an epoch has {steps_per_epoch}"
        why += f"; more than {MOST} are never chosen" if epochs == MOST else ""
    say(f"--epochs is {epochs}: {why}")
    return replace(options, epochs=epochs)
