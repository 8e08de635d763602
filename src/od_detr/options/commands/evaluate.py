"""The options of an evaluation, which the command and Python share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from od_detr.options.commands.shared import (
    WeightsName,
    device_option,
    json_option,
    run_option,
    weights_option,
)
from od_detr.options.fields import option


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
