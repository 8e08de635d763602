"""The teacher's update against Lightning's `EMAWeightAveraging`, for a ResNet-50 detector."""

from __future__ import annotations

import copy
from typing import Any

import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch.optim.swa_utils import AveragedModel

from benchmarks.step import large_detector
from benchmarks.timing import Figure, interleaved, speedup
from od_detr.training.teacher import PAPER_DECAY, Average


def measure(rounds: int = 15, **sizes: Any) -> dict[str, Figure]:
    """The figure of `od-detr benchmark ema`.

    Both follow the same student; ours leaves out what is frozen.
    """
    detector = large_detector(**sizes)
    average = Average(detector)
    peer = AveragedModel(copy.deepcopy(detector), **lightning_defaults())
    with torch.no_grad():
        for weight in detector.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight), alpha=0.01)
    peer.update_parameters(average.detector)  # its first update only copies
    seconds = interleaved(
        {
            "ours": lambda: average.follow(detector, PAPER_DECAY),
            "peer": lambda: peer.update_parameters(detector),
        },
        rounds,
    )
    for mine, theirs in zip(average.detector.parameters(), peer.module.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)
    return {"speedup_over_lightning": speedup(seconds["ours"], seconds["peer"], 4.0)}


def lightning_defaults() -> dict[str, Any]:
    """How the callback sets up its average."""
    callback = EMAWeightAveraging(decay=PAPER_DECAY)
    return {"use_buffers": callback._use_buffers, **callback._kwargs}


if __name__ == "__main__":
    print(measure())
