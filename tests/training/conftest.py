"""Detectors and scenes so small that a whole run takes seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from od_detr.data.scenes import render_scenes
from od_detr.options import TrainOptions

TINY: dict[str, Any] = {
    "backbone": "resnet18",
    "backbone_weights": "none",
    "backbone_options": {"channels": [8, 16, 24, 32], "layers": [1, 1, 1, 1]},
    "hidden_dim": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "queries": 12,
    "feedforward": 64,
    "num_levels": 3,
    "image_size": 64,
    "batch_size": 4,
    "workers": 0,
    "device": "cpu",
}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 training and 4 validation scenes of 64 pixels."""
    folder = tmp_path_factory.mktemp("data") / "scenes"
    render_scenes(folder, 12, 4, 64, seed=0)
    return folder


@pytest.fixture
def options(scenes: Path, tmp_path: Path) -> Callable[..., TrainOptions]:
    """Options of a tiny run into a folder of the test's own."""

    def make(**changes: Any) -> TrainOptions:
        return TrainOptions(
            **{"data": str(scenes), "output": str(tmp_path / "run"), "epochs": 2} | TINY | changes
        )

    return make
