"""`od-detr reproduce`."""

from __future__ import annotations

from od_detr.experiments.reproduce import ReproduceOptions, reproduce

__all__ = ["ReproduceOptions", "reproduce"]
