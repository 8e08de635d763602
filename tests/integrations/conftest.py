"""Small detectors with weights that no two layers share, and checkpoints made of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch

from od_detr.detectors import DetectionTransformer, build_detector

SIZES = {
    "backbone": "resnet18",
    "backbone_frozen": True,
    "hidden_dim": 32,
    "heads": 8,
    "points": 1,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "feedforward": 24,
    "queries": 7,
    "dropout": 0.0,
}
# A backbone that no other code has, where only ours reads the weights.
NARROW = {"backbone_options": {"channels": [8, 16, 24, 32], "layers": [1, 1, 1, 1]}}


@pytest.fixture(scope="session")
def small() -> Callable[..., DetectionTransformer]:
    """Builds a small detector of any architecture, with every weight moved at random.

    Each detector is built once; every call returns a copy of its own.
    """

    @cache
    def built(
        model: str, num_classes: int, narrow: bool, changes: frozenset
    ) -> DetectionTransformer:
        sizes = SIZES | (NARROW if narrow else {}) | dict(changes)
        with torch.random.fork_rng():
            torch.manual_seed(3)
            detector = build_detector(model, num_classes, **sizes).eval()
            with torch.no_grad():
                for tensor in detector.state_dict().values():
                    if tensor.is_floating_point():
                        tensor.add_(torch.randn_like(tensor) * 0.02)
        return detector

    def build(
        model: str, num_classes: int = 5, narrow: bool = False, **changes: object
    ) -> DetectionTransformer:
        return copy.deepcopy(built(model, num_classes, narrow, frozenset(changes.items())))

    return build


@pytest.fixture
def save(tmp_path: Path) -> Callable[[object], Path]:
    def write(content: object) -> Path:
        torch.save(content, tmp_path / "checkpoint.pth")
        return tmp_path / "checkpoint.pth"

    return write
