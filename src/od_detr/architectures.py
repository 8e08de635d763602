"""The architectures by their names on the command line.

Each row names the builder, what the architecture can do, and the paper's settings. An architecture
of your own is a row here and a builder in `od_detr.detectors`.

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
        builder: where its builder is, as ``"module:function"``. It is imported when it is called.
        lr: learning rate of the transformer.
        offsets_lr: factor on `lr` for sampling offsets and reference points.
        class_weight: weight of the classification losses.
        eps: added to areas in the IoU, as the original code does.
        top_k: detections per image in evaluation.
        two_stage: the encoder proposes the queries and has predictions of its own.
        denoising: training adds a denoising group.
        num_levels: number of feature levels where the architecture fixes it, else None.
    """

    builder: str
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
        "od_detr.detectors.deformable_detr:deformable_detr_plus",
        lr=2e-4,
        offsets_lr=0.1,
        class_weight=2.0,
        eps=0.0,
        top_k=100,
    ),
    "dab-deformable-detr": Architecture(
        "od_detr.detectors.dab_deformable_detr:dab_deformable_detr",
        lr=1e-4,
        offsets_lr=1.0,
        class_weight=1.0,
        eps=1e-6,
        top_k=100,
    ),
    "dino-4scale": Architecture(
        "od_detr.detectors.dino:dino",
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
        "od_detr.detectors.dino:dino",
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
