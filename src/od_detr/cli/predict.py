"""`od-detr predict`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from od_detr.options.commands.shared import (
    WeightsName,
    device_option,
    json_option,
    run_option,
    weights_option,
)
from od_detr.options.fields import REQUIRED, option


@dataclass(frozen=True)
class PredictOptions:
    """Detect objects in images and videos; write drawn copies and a JSON file of COCO results."""

    run: str = run_option()
    sources: list[str] = option(
        REQUIRED,
        "Images, videos, folders, glob patterns; or the number of a camera, such as 0.",
        positional=True,
        known_as=("source", "image", "images", "video", "camera", "webcam"),
    )
    output: str = option(
        "predictions",
        "Folder for the drawn copies and detections.json: a new one, or an earlier predict's.",
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
    classes: list[str] | None = option(
        None, "Names of the classes to keep, separated by commas.", shown="all"
    )
    csv: bool = option(False, "Also write detections.csv.", known_as=("save_csv",))
    yolo: bool = option(
        False,
        "Also write YOLO labels, in labels/.",
        known_as=("save_txt", "txt", "labels", "save_labels"),
    )
    save_crops: bool = option(
        False,
        "Also save each detection as a separate image, in crops/CLASS/.",
        known_as=("crops", "save_crop", "crop"),
    )
    batch_size: int = option(
        4,
        "Images that are computed together, if they have one size.",
        at_least=1,
        known_as=("batch", "bs"),
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
    from od_detr.data.counts import counted
    from od_detr.inference.files import Wanted, predict_files
    from od_detr.inference.predictor import Predictor

    predictor = Predictor.from_run(
        options.run, options.weights, options.device, options.precision, options.compile
    )
    wanted = Wanted(
        options.threshold,
        options.classes,
        options.batch_size,
        options.csv,
        options.yolo,
        options.save_crops,
    )
    found = predict_files(predictor, options.sources, Path(options.output), wanted)
    threshold = predictor.chosen(options.threshold)
    print(
        f"{counted(found['detections'], 'detection')} in {counted(found['images'], 'image')} "
        f"(scores of at least {threshold:g}), drawn in {options.output}"
    )
    return found | {"threshold": threshold}
