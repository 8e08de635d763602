"""The whole of it learns."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from od_detr.data.scenes import render_scenes
from od_detr.inference.evaluate import evaluate_run
from od_detr.options import EvalOptions, OptimizerOptions, TrainOptions
from od_detr.training.fit import fit


@pytest.mark.slow
def test_two_images_overfit(options: Callable[..., TrainOptions], tmp_path: Path) -> None:
    data = tmp_path / "two"
    render_scenes(data, 2, 1, 64, seed=0)
    shutil.copy(data / "train.json", data / "val.json")  # what was seen is what is asked for
    shutil.copytree(data / "images" / "train", data / "images" / "val", dirs_exist_ok=True)
    assert len(json.loads((data / "train.json").read_text())["annotations"]) >= 6
    run = fit(
        options(
            data=str(data),
            recipe="od",
            epochs=110,
            batch_size=2,
            augment="none",
            dropout=0.0,
            hidden_dim=64,
            queries=20,
            feedforward=128,
            opt=OptimizerOptions(lr=2e-3),
            eval=EvalOptions(every=110),
            backbone_options={"channels": [16, 24, 32, 48], "layers": [1, 1, 1, 1]},
        )
    )
    assert run.summaries["online"]["AP"] > 0.9
    assert run.rows[-1]["train/loss"] < run.rows[0]["train/loss"] / 5
    best = max(run.rows[-1]["val/AP"], run.rows[-1]["val/teacher/AP"])
    assert evaluate_run(run.directory, data)["AP"] == best  # and the file holds what was measured
