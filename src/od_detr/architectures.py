"""The architectures by their names on the command line, with what the paper's experiments set for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

ModelName = Literal["deformable-detr-plus", "dab-deformable-detr", "dino-4scale", "dino-5scale"]


@dataclass(frozen=True)
class Architecture:
    """What the paper's experiments set per architecture. `eps` is added to areas as the original code does."""

    builder: str
    arguments: dict[str, Any]
    lr: float
    offsets_lr: float
    class_weight: float
    eps: float
    top_k: int


ARCHITECTURES: dict[str, Architecture] = {
    "deformable-detr-plus": Architecture("deformable_detr_plus", {}, 2e-4, 0.1, 2.0, 0.0, 100),
    "dab-deformable-detr": Architecture("dab_deformable_detr", {}, 1e-4, 1.0, 1.0, 1e-6, 100),
    "dino-4scale": Architecture("dino", {"num_levels": 4}, 1e-4, 1.0, 1.0, 1e-6, 300),
    "dino-5scale": Architecture("dino", {"num_levels": 5}, 1e-4, 1.0, 1.0, 1e-6, 300),
}
