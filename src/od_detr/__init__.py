"""OD-DETR: detection transformers trained with online distillation."""

from od_detr.api import Detector

__all__ = ["Detector"]
