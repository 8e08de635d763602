"""What `last.ckpt` holds: from it a run continues bit for bit."""

from __future__ import annotations

from typing import Any

import torch

from od_detr.errors import NonFiniteError
from od_detr.training.module import Training
from od_detr.training.nonfinite.guard import all_finite


def contents_of(training: Training) -> dict[str, Any]:
    """Everything that a run is between two steps. All ranks call this."""
    return {
        "state_dict": training.network.state_dict(),
        "detector": training.network.detector.settings,
        **training.descent.state_dict(),
        "global_step": training.state.step,
        "run": training.state.state_dict(),
    }


def restore(training: Training, contents: dict[str, Any]) -> None:
    """Continues from the contents of a run with the same detector and options."""
    training.network.load_state_dict(contents["state_dict"])
    training.descent.load_state_dict(contents)
    training.state.load_state_dict(contents["run"], training.fabric.device)
    training.state.step = contents["global_step"]


def check_finite(contents: dict[str, Any]) -> None:
    """Refuses to save weights or moments that are not finite.

    Raises:
        NonFiniteError: naming the first of them.
    """
    moments = contents["optimizer"]["state"].values()
    tensors = {name: each for name, each in contents["state_dict"].items() if torch.is_tensor(each)}
    rest = [each for state in moments for each in state.values() if torch.is_tensor(each)]
    if all_finite([*tensors.values(), *rest]):
        return
    guilty = [name for name, each in tensors.items() if not all_finite([each])]
    raise NonFiniteError(
        f"{guilty[0] if guilty else 'the state of the optimizer'} is not finite, so it is not "
        "saved; lower --opt.lr, or give --precision 32 or bf16, and continue with --resume "
        "--output RUN",
        contents["global_step"],
    )
