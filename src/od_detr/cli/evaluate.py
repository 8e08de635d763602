"""`od-detr evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from od_detr.cli.command import (
    DeviceName,
    WeightsName,
    device_option,
    json_option,
    run_option,
    weights_option,
)
from od_detr.options.fields import REQUIRED, option


@dataclass(frozen=True)
class EvaluateOptions:
    """Compute the 12 COCO metrics and the AP of each class on a labelled data set."""

    run: str = run_option()
    data: str = option(REQUIRED, "Folder with images and COCO annotations.", metavar="DIR")
    split: Literal["train", "val", "test"] = option("val", "Part of the data to evaluate on.")
    weights: WeightsName = weights_option()
    image_size: int | None = option(
        None,
        "Short side of the images in pixels.",
        at_least=16,
        shown="as in training",
        known_as=("imgsz", "img_size", "size"),
    )
    batch_size: int = option(4, "Images in a batch.", at_least=1, known_as=("batch", "bs"))
    workers: int = option(
        0, "Number of processes that load images.", at_least=0, known_as=("num_workers",)
    )
    device: DeviceName = device_option()
    precision: Literal["auto", "32", "bf16"] = option(
        "32", "Precision of the network. auto is bf16 where the processor supports it."
    )
    json: bool = json_option()


def evaluate(options: EvaluateOptions) -> dict[str, Any]:
    """Evaluates and prints the table."""
    from rich.console import Console

    from od_detr.evaluation.coco import format_table
    from od_detr.inference.evaluate import evaluate_run

    summary = evaluate_run(
        Path(options.run),
        Path(options.data),
        options.split,
        weights=options.weights,
        image_size=options.image_size,
        batch_size=options.batch_size,
        workers=options.workers,
        device=options.device,
        precision=options.precision,
    )
    title = f"{options.run}, {options.split} split, {options.weights} weights"
    Console().print(format_table(summary, title))
    return summary
