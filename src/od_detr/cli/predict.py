"""`od-detr predict`."""

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
from od_detr.options.fields import REQUIRED, option


@dataclass(frozen=True)
class PredictOptions:
    """Detect objects in images; write drawn copies and a JSON file in COCO's result format."""

    run: str = run_option()
    sources: list[str] = option(
        REQUIRED,
        "Image files, folders of images, or glob patterns.",
        positional=True,
        known_as=("source", "image", "images"),
    )
    output: str = option(
        "predictions",
        "Folder for the pictures and detections.json.",
        metavar="DIR",
        known_as=("name", "project", "save_dir", "out"),
    )
    threshold: float | None = option(
        None,
        "Lowest score of a detection that is drawn and written. auto is the one with the highest "
        "F1 on the validation set, or 0.3 if the run measured none.",
        at_least=0,
        at_most=1,
        shown="auto",
        known_as=("conf", "confidence", "score", "conf_thres"),
    )
    weights: WeightsName = weights_option()
    device: str = device_option()
    precision: Literal["auto", "32", "bf16"] = option(
        "auto",
        "Precision of the network. auto is bf16 where the processor supports it.",
        known_as=("half",),
    )
    compile: bool = option(
        False, "Compile the backbone with torch.compile for a GPU. Worth it for many images."
    )
    json: bool = json_option()


def predict(options: PredictOptions) -> dict[str, Any]:
    """Predicts, draws and writes."""
    from od_detr.inference.files import predict_files
    from od_detr.inference.predictor import Predictor

    predictor = Predictor.from_run(
        options.run, options.weights, options.device, options.precision, options.compile
    )
    found = predict_files(predictor, options.sources, Path(options.output), options.threshold)
    threshold = predictor.chosen(options.threshold)
    print(
        f"{found['detections']} detections in {found['images']} images (scores of at least "
        f"{threshold:g}), drawn in {options.output}"
    )
    return found | {"threshold": threshold}
