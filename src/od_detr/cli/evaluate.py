"""`od-detr evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from od_detr.cli.command import (
    WeightsName,
    device_option,
    json_option,
    run_option,
    weights_option,
)
from od_detr.errors import InputError
from od_detr.options.fields import option

PICTURES = (".png", ".pdf", ".svg", ".jpg")


@dataclass(frozen=True)
class EvaluateOptions:
    """Compute the COCO metrics, precision and recall, and the kinds of error on labelled data."""

    run: str = run_option()
    data: str | None = option(
        None,
        "Folder of labelled images: COCO, YOLO (or its YAML file) or Pascal VOC.",
        metavar="DIR",
        shown="that of the run",
    )
    split: Literal["train", "val", "test"] = option(
        "val", "Part of the data to evaluate on.", known_as=("task", "set", "subset")
    )
    output: str | None = option(
        None,
        "Write the detections to this file as COCO results, which pycocotools loads.",
        metavar="FILE",
        shown="write nothing",
        known_as=("save_json", "out"),
    )
    figure: str | None = option(
        None,
        "Save curves, errors and the confusion matrix as this image file.",
        metavar="FILE",
        shown="draw nothing",
        known_as=("plots", "plot"),
    )
    threshold: float | None = option(
        None,
        "Score from which a detection counts for precision, recall and errors. auto is the one "
        "with the highest F1 on the validation set of the run.",
        at_least=0,
        at_most=1,
        shown="auto",
        known_as=("conf", "confidence", "score", "conf_thres"),
    )
    weights: WeightsName = weights_option()
    image_size: int | None = option(
        None,
        "Short side of the images in pixels.",
        at_least=16,
        cap=10_000,
        shown="as in training",
        known_as=("imgsz", "img_size", "size"),
    )
    batch_size: int = option(
        4, "Images in a batch.", at_least=1, cap=65_536, known_as=("batch", "bs")
    )
    workers: int = option(
        0, "Number of processes that load images.", at_least=0, cap=1024, known_as=("num_workers",)
    )
    device: str = device_option()
    precision: Literal["auto", "32", "bf16"] = option(
        "32", "Precision of the network. auto is bf16 where the processor supports it."
    )
    on_unreadable: Literal["stop", "skip"] = option(
        "stop",
        "What to do if an image cannot be used: stop before the first batch, or skip it and its "
        "objects and end with status 4.",
    )
    json: bool = json_option()


def evaluate(options: EvaluateOptions) -> dict[str, Any]:
    """Evaluates, prints the results and writes what was asked for."""
    from rich.console import Console

    from od_detr.data.counts import counted
    from od_detr.evaluation.coco import format_metrics
    from od_detr.inference.evaluate import evaluate_run
    from od_detr.reporting.evaluation import described

    figure = _picture(options.figure)
    results = evaluate_run(
        Path(options.run),
        None if options.data is None else Path(options.data),
        options.split,
        weights=options.weights,
        image_size=options.image_size,
        batch_size=options.batch_size,
        workers=options.workers,
        device=options.device,
        precision=options.precision,
        threshold=options.threshold,
        output=None if options.output is None else Path(options.output),
        on_unreadable=options.on_unreadable,
    )
    title = f"{options.run}, {options.split} split, {options.weights} weights"
    console = Console()
    for line in results["notes"]:
        print(line)
    console.print(format_metrics(results, title), "", described(results))
    if results["skipped"]:
        console.print(f"Left out as unusable: {counted(len(results['skipped']), 'image')}.")
    if results["AP"] < 0:
        console.print(f"The {options.split} split has no objects, so AP cannot be measured.")
    if figure is not None:
        from od_detr.reporting.evaluation_figure import evaluation_figure

        evaluation_figure(results, figure, title)
    return results


def _picture(figure: str | None) -> Path | None:
    """The picture's path, checked before anything is computed."""
    if figure is None:
        return None
    path = Path(figure)
    if path.suffix.lower() not in PICTURES:
        raise InputError(f"--figure {figure}: must end in {', '.join(PICTURES)}")
    return path
