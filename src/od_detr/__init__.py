"""OD-DETR: detection transformers trained with online distillation."""

from od_detr.api import Detector, train

__all__ = ["Detector", "train"]
