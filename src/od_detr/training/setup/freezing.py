"""Freezes the first parts of a detector, so that fine-tuning moves the rest only."""

from __future__ import annotations

from torch import nn

from od_detr.errors import InputError
from od_detr.options import TrainOptions

# What each choice of --freeze freezes: attributes of the detector, in the order of the data.
FROZEN = {"backbone": ("backbone",), "encoder": ("backbone", "neck", "encoder")}


def freeze(detector: nn.Module, choice: str | None) -> None:
    """Takes the chosen parts of a detector out of training; None leaves all in it.

    `Supervised` keeps them in eval mode as well.
    """
    for name in FROZEN[choice] if choice else ():
        getattr(detector, name).requires_grad_(False)


def is_frozen(module: nn.Module) -> bool:
    """Whether a module has weights and none of them is trained."""
    trained = [each.requires_grad for each in module.parameters()]
    return bool(trained) and not any(trained)


def check_freeze(options: TrainOptions) -> None:
    """Refuses to freeze what has random weights.

    Raises:
        InputError: naming what to start from.
    """
    choice = options.freeze
    if choice is None or options.init is not None:
        return
    if choice == "encoder":
        raise InputError(
            "--freeze encoder: the encoder of a new detector is random; give a trained one with "
            "--init, or --freeze backbone"
        )
    if options.backbone_weights == "none":
        raise InputError(
            "--freeze backbone: --backbone-weights none leaves it random; give weights, or --init"
        )
