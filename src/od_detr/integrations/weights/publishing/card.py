"""The model card of a detector, made from what its run recorded."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from od_detr.errors import InputError
from od_detr.integrations.weights.hub import PREFIX, is_hub_name
from od_detr.options import TrainOptions
from od_detr.options.config_file import read_config
from od_detr.run_files import RunFiles

CURVES = "curves.png"
TITLES = {
    "deformable-detr-plus": "Deformable-DETR+",
    "dab-deformable-detr": "DAB-Deformable-DETR",
    "dino-4scale": "DINO (4 scales)",
    "dino-5scale": "DINO (5 scales)",
}
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
USE = """\
## Use

With [OD-DETR](https://github.com/od-detr/od-detr) installed:

    from od_detr import Detector
    detector = Detector.from_pretrained("{name}")
    detections = detector.predict("street.jpg")      # supervision.Detections
    print(detections.xyxy, detections.confidence, detections.data["class_name"])
"""


def model_card(
    name: str,
    config: Mapping[str, Any],
    options: Mapping[str, Any],
    rows: Sequence[Mapping[str, str]],
) -> str:
    """The text of `README.md`: how to use the detector, its classes, training data and AP.

    Paths of this computer are not shown, only the names of folders.

    Args:
        name: the repository or folder, as `from_pretrained` takes it.
        config: the configuration of the detector, as `open_weights` gives it.
        options: of the run that trained it, see `training_options`. Without any, the card has no
            training section.
        rows: of that run's `metrics.csv`, see `metric_rows`.
    """
    model, backbone = config["detector"]["model"], config["detector"]["backbone"]
    parts = [
        _metadata(name, config, options),
        f"# {name}\n\nAn object detector: {TITLES.get(model, model)} with {backbone}.",
        USE.format(name=name),
        _classes(config),
    ]
    if options:
        parts += [_training(options), _results(config, rows)]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def training_options(run: RunFiles) -> dict[str, Any]:
    """The run's options by dotted name; empty where there is no run."""
    return read_config(TrainOptions, run.config) if run.is_run else {}


def metric_rows(run: RunFiles) -> list[dict[str, str]]:
    """The rows of the run's `metrics.csv`; none where it is missing.

    Raises:
        InputError: the file cannot be read.
    """
    if not run.metrics.is_file():
        return []
    try:
        with run.metrics.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{run.metrics}: cannot be read ({error}); remove it") from error


def _metadata(name: str, config: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """The YAML block that the hub reads."""
    from huggingface_hub import EvalResult, ModelCardData

    ap = config.get("AP")
    results = None
    if options and isinstance(ap, int | float) and ap >= 0:
        data = _data_name(options)
        value = round(100 * ap, 1)
        results = [
            EvalResult(
                "object-detection", data, data, "AP", value, dataset_split="val", metric_name="AP"
            )
        ]
    data = ModelCardData(
        library_name="od-detr",
        pipeline_tag="object-detection",
        tags=["object-detection", "od-detr", config["detector"]["model"]],
        base_model=_base(options),
        model_name=name.rpartition("/")[2],
        eval_results=results,
    )
    return f"---\n{data}\n---"


def _base(options: Mapping[str, Any]) -> str | None:
    """The repository that the training started from, without a revision."""
    init = str(options.get("init") or "")
    return init.removeprefix(PREFIX).partition("@")[0] if is_hub_name(init) else None


def _data_name(options: Mapping[str, Any]) -> str:
    """The name of the data folder, which may be the current one."""
    return os.path.basename(os.path.abspath(options["data"]))


def _classes(config: Mapping[str, Any]) -> str:
    names = ", ".join(config["classes"])
    lines = [f"{len(config['classes'])} classes: {names}."]
    if "image_size" in config:
        lines.append(f"Images are resized to a short side of {config['image_size']} pixels.")
    if "threshold" in config:
        lines.append(
            f"`predict` uses the threshold {config['threshold']:.2f}, which had the highest F1 on "
            "the validation set."
        )
    return "## Classes\n\n" + "\n".join(lines)


def _training(options: Mapping[str, Any]) -> str:
    devices = int(options.get("devices") or 1) * int(options.get("nodes") or 1)
    batch = f"{options.get('batch_size')} images"
    if devices > 1 or int(options.get("accumulate") or 1) > 1:
        batch += f" x {options.get('accumulate') or 1} accumulated x {devices} devices"
    rows = {
        "data": f"`{_data_name(options)}`",
        "recipe": options.get("recipe"),
        "started from": _started_from(options),
        "epochs": options.get("epochs"),
        "batch": batch,
        "learning rate": _rate(options),
        "augmentation": options.get("augment"),
        "seed": options.get("seed"),
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items() if value is not None]
    return "\n".join(["## Training", "", "| | |", "|---|---|", *lines])


def _rate(options: Mapping[str, Any]) -> str:
    rate, drop = str(options.get("opt.lr")), options.get("opt.drop")
    dropped = drop is not None and drop < options.get("epochs", 0)
    return f"{rate}, divided by 10 after epoch {drop}" if dropped else rate


def _started_from(options: Mapping[str, Any]) -> str:
    init = str(options.get("init") or "")
    if init:
        return f"`{init.removeprefix(PREFIX) if is_hub_name(init) else Path(init).name}`"
    weights = str(options.get("backbone_weights") or "none")
    known = {"none": "random weights", "imagenet": "a backbone trained on ImageNet"}
    return known.get(weights, f"the backbone `{Path(weights).name}`")


def _results(config: Mapping[str, Any], rows: Sequence[Mapping[str, str]]) -> str:
    """The metrics of the best epoch in percent, and the curves."""
    weights, epoch = config.get("weights"), str(config.get("epoch"))
    row = next((each for each in rows if each.get("epoch") == epoch), None)
    if row is None:
        return ""
    prefix = "val/teacher/" if weights == "teacher" else "val/"
    values = {name: row.get(prefix + name) for name in METRICS}
    shown = {name: _percent(value) for name, value in values.items() if value}
    return "\n".join(
        [
            "## Results",
            "",
            f"COCO metrics in percent on the validation split: {weights} weights of epoch {epoch}.",
            "",
            "| " + " | ".join(shown) + " |",
            "|" + "---|" * len(shown),
            "| " + " | ".join(shown.values()) + " |",
            "",
            f"![Curves of the training]({CURVES})",
        ]
    )


def _percent(text: str) -> str:
    value = float(text)
    return "-" if not 0 <= value <= 1 else f"{100 * value:.1f}"
