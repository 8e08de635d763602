"""torch.compile where it pays: the backbone, on a GPU."""

from __future__ import annotations

from typing import Any

from torch import nn

from od_detr.detectors.transformer import DetectionTransformer
from od_detr.errors import InputError


def check_compiles(device: str) -> None:
    """Refuses a type of device on which compiling does not pay.

    Raises:
        InputError: with the measured gain.
    """
    if device != "cuda":
        raise InputError(
            f"--compile: on a {device} steps gain 5 % after 80 s of compiling "
            "(docs/performance.md); leave it out"
        )


def compile_backbone(detector: DetectionTransformer, **options: Any) -> None:
    """Compiles the backbone with torch.compile when it first runs.

    `options` are those of torch.compile. No weight is renamed.
    """
    assert isinstance(detector.backbone, nn.Module)
    detector.backbone.compile(**options)
