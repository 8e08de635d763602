"""The main job in minutes: built-in scenes, a small detector, the whole method."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from od_detr.data.counts import counted
from od_detr.data.scenes import render_scenes
from od_detr.errors import InputError, Interrupted
from od_detr.options import EvalOptions, OptimizerOptions, TrainOptions
from od_detr.run_files import RunFiles

TRAIN_SCENES, UNSEEN_SCENES, SCENE_SIZE = 1000, 200, 128
SHEET = 12  # pictures on the contact sheet


def demo_options(data: Path, output: Path, seed: int = 0) -> TrainOptions:
    """A Deformable-DETR+ of 1.7 M parameters, from scratch: 7 epochs of 125 steps of 8 scenes."""
    return TrainOptions(
        data=str(data),
        output=str(output),
        model="deformable-detr-plus",
        recipe="od",
        epochs=7,
        batch_size=8,
        image_size=SCENE_SIZE,
        augment="flip",
        backbone="resnet18",
        backbone_weights="none",
        backbone_options={
            "channels": [32, 64, 128, 192],
            "layers": [1, 1, 1, 1],
            "stem_type": "deep",
            "stem_width": 16,
        },
        hidden_dim=96,
        encoder_layers=2,
        decoder_layers=3,
        queries=40,
        feedforward=384,
        num_levels=3,
        dropout=0.0,
        seed=seed,
        device="cpu",
        workers=1,
        opt=OptimizerOptions(lr=8e-4, warmup=50),
        eval=EvalOptions(every=2),
    )


def run_demo(output: Path, seed: int = 0) -> dict[str, Any]:
    """Renders scenes, trains, prints the result, and draws detections and curves into `output`."""
    from rich.console import Console
    from rich.table import Table

    from od_detr.inference.files import Wanted, predict_files
    from od_detr.inference.predictor import Predictor
    from od_detr.reporting.curves import curves
    from od_detr.reporting.drawing import contact_sheet
    from od_detr.training.fit import fit

    data, training = output / "scenes", output / "training"
    _start_afresh(training)
    render_scenes(data, TRAIN_SCENES, UNSEEN_SCENES, SCENE_SIZE, seed)
    with _advising(training):
        run = fit(demo_options(data, training, seed))
    unseen = sorted((data / "images" / "val").glob("*.png"))[:SHEET]
    predictor = Predictor.from_run(training)
    files = [str(file) for file in unseen]
    predict_files(predictor, files, output / "predictions", Wanted(threshold=0.4))
    contact_sheet(_opened(output / "predictions"), columns=4).save(output / "predictions.png")
    curves({"od": run.rows}, output / "curves.png")

    last = run.rows[-1]
    table = Table(title=f"Unseen scenes, after {counted(last['epoch'], 'epoch')}", box=None)
    for name in ("weights", "AP", "AP50", "AP75", "instability"):
        table.add_column(name, justify="right")
    for name, prefix in (("online", ""), ("teacher", "teacher_")):
        summary = run.summaries[name]
        metrics = [f"{100 * summary[key]:.1f}" for key in ("AP", "AP50", "AP75")]
        table.add_row(name, *metrics, f"{last[f'stability/{prefix}instability']:.2f}")
    Console().print(table)
    consistency = 100 * last["stability/consistency"]
    print(
        f"consistency: {consistency:.1f} % of objects are matched by the same query of online and "
        "teacher"
    )
    print(
        f"pictures: {output / 'predictions.png'}   curves: {output / 'curves.png'}   detector: "
        f"{RunFiles(training).best}"
    )
    best = json.loads(RunFiles(training).best_config.read_text())
    return {"AP": best["AP"], "weights": best["weights"], "run": str(training), **last}


@contextmanager
def _advising(training: Path) -> Iterator[None]:
    """Says how to go on after Ctrl-C: a second demo would start from the beginning."""
    try:
        yield
    except Interrupted as stop:
        if not RunFiles(training).is_saved:
            raise
        advice = f"stopped; continue with od-detr train --resume --output {training}"
        raise Interrupted(advice, stop.status) from stop


def _start_afresh(training: Path) -> None:
    """Removes an earlier demo's run, and nothing that is not one."""
    if not training.exists():
        return
    if not RunFiles(training).is_run:
        raise InputError(
            f"{training}: exists and is not a run of od-detr; give the demo another --output"
        )
    shutil.rmtree(training)


def _opened(folder: Path) -> list[Any]:
    from PIL import Image

    return [Image.open(file) for file in sorted(folder.glob("*.jpg"))]
