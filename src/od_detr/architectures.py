"""The architectures by their names on the command line: what each can do, and the paper's settings.

Only the standard library is imported here, because the options and `--help` need this table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ModelName = Literal["deformable-detr-plus", "dab-deformable-detr", "dino-4scale", "dino-5scale"]


@dataclass(frozen=True)
class Architecture:
    """One architecture: its capabilities, and what the paper's experiments set for it.

    Attributes:
        lr: learning rate of the transformer.
        offsets_lr: factor on `lr` for sampling offsets and reference points.
        class_weight: weight of the classification losses.
        eps: added to areas in the IoU, as the original code does.
        top_k: detections per image in evaluation.
        two_stage: the encoder proposes the queries and has predictions of its own.
        denoising: training adds a denoising group.
        num_levels: number of feature levels where the architecture fixes it, else None.
    """

    lr: float
    offsets_lr: float
    class_weight: float
    eps: float
    top_k: int
    two_stage: bool = False
    denoising: bool = False
    num_levels: int | None = None


ARCHITECTURES: dict[str, Architecture] = {
    "deformable-detr-plus": Architecture(
        lr=2e-4, offsets_lr=0.1, class_weight=2.0, eps=0.0, top_k=100
    ),
    "dab-deformable-detr": Architecture(
        lr=1e-4, offsets_lr=1.0, class_weight=1.0, eps=1e-6, top_k=100
    ),
    "dino-4scale": Architecture(
        lr=1e-4,
        offsets_lr=1.0,
        class_weight=1.0,
        eps=1e-6,
        top_k=300,
        two_stage=True,
        denoising=True,
        num_levels=4,
    ),
    "dino-5scale": Architecture(
        lr=1e-4,
        offsets_lr=1.0,
        class_weight=1.0,
        eps=1e-6,
        top_k=300,
        two_stage=True,
        denoising=True,
        num_levels=5,
    ),
}
