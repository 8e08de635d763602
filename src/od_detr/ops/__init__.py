"""Operators that PyTorch lacks."""

from __future__ import annotations

from od_detr.ops.attention import BACKENDS, attention_backend, deformable_attention, selected_backend

__all__ = ["BACKENDS", "attention_backend", "deformable_attention", "selected_backend"]
