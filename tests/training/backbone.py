"""A small backbone with weights of its own."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file

from od_detr.nn.backbone import Backbone


def backbone_file(folder: Path) -> Path:
    """Weights of the tiny backbone, as if trained elsewhere."""
    small = {"channels": [8, 16, 24, 32], "layers": [1, 1, 1, 1]}
    weights = Backbone("resnet18", weights="none", options=small).features.state_dict()
    file = folder / "backbone.safetensors"
    save_file({name: value.contiguous() for name, value in weights.items()}, file)
    return file
