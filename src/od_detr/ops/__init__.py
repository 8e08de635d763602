"""Operators that PyTorch lacks."""

from __future__ import annotations

from od_detr.ops.attention import (
    BACKENDS,
    attention_backend,
    deformable_attention,
    selected_backend,
)
from od_detr.ops.reference import LevelShapes
from od_detr.ops.sampling import deformable_sampling

__all__ = [
    "BACKENDS",
    "LevelShapes",
    "attention_backend",
    "deformable_attention",
    "deformable_sampling",
    "selected_backend",
]
