"""Freezes the first parts of a detector, so that fine-tuning moves the rest only."""

from __future__ import annotations

from torch import nn

from od_detr.errors import InputError

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


def check_freeze(choice: str | None, init: str | None, backbone_weights: str) -> None:
    """Refuses to freeze what has random weights.

    Args:
        choice: what to freeze.
        init: the trained detector to start from.
        backbone_weights: weights of a new detector's backbone.

    Raises:
        InputError: naming what to start from.
    """
    if choice is None or init is not None:
        return
    if choice == "encoder":
        raise InputError(
            "--freeze encoder: the encoder of a new detector is random; give a trained one with "
            "--init, or --freeze backbone"
        )
    if backbone_weights == "none":
        raise InputError(
            "--freeze backbone: --backbone-weights none leaves it random; give weights, or --init"
        )
