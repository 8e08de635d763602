"""A run's `config.yaml`: every option as it was resolved when the run began."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from od_detr.detectors import DetectionTransformer
from od_detr.dotted import flat, with_values
from od_detr.errors import InputError
from od_detr.files import atomic_write, make_directory, writing
from od_detr.nn.backbone import WEIGHT_NAMES
from od_detr.options import PATHS, PER_RUN, SIZES, TrainOptions
from od_detr.plain_yaml import dump_yaml
from od_detr.run_files import CONFIG_HEAD
from od_detr.training.optimizer import default_backbone_lr
from od_detr.training.teacher import Teacher


def resolved(
    options: TrainOptions, detector: DetectionTransformer, teacher: Teacher | None
) -> TrainOptions:
    """The options with all values filled in that architecture, schedule or `init` decide."""
    architecture, settings = options.architecture, detector.settings
    values = {name: settings[name] for name in SIZES}
    if isinstance(settings["backbone"], str):
        values |= {name: settings[name] for name in ("backbone", "backbone_options")}
        values["backbone_options"] = dict(values["backbone_options"] or {})
    defaults = {
        "opt.lr": architecture.lr,
        "opt.backbone_lr": default_backbone_lr(detector),
        "opt.drop": options.drop_epoch,
        "ema.decay": None if teacher is None else teacher.decay,
        "qfl.class_weight": architecture.class_weight,
        "eval.topk": detector.top_k,
    }
    chosen = flat(plain(dataclasses.asdict(options)))
    open_ones = {name: value for name, value in defaults.items() if chosen[name] is None}
    return with_values(options, values | open_ones)


def write_config(options: TrainOptions, path: Path) -> None:
    """Writes the options so that `--config` reads them.

    Raises:
        InputError: a file of that name is there and no run wrote it.
    """
    if path.exists() and not path.read_text(errors="replace").startswith(CONFIG_HEAD):
        raise InputError(f"{path}: exists and was not written by a run; give another --output")
    values = plain_options(options)
    kept = {name: value for name, value in values.items() if name not in PER_RUN}
    with writing(path):
        make_directory(path.parent)
        with atomic_write(path) as partial:
            partial.write_text(CONFIG_HEAD + dump_yaml(kept))


def plain_options(options: TrainOptions) -> dict[str, Any]:
    """The options as YAML knows them, with absolute paths: a run continues from any folder."""
    values = plain(dataclasses.asdict(options))
    for name in PATHS:
        word = name == "backbone_weights" and values[name] in WEIGHT_NAMES
        if values[name] is not None and not word and Path(values[name]).exists():
            values[name] = str(Path(values[name]).absolute())
    return values


def plain(value: Any) -> Any:
    """Dictionaries, lists and scalars only, as YAML knows them."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, tuple | list) else value
