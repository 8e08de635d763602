"""Names that other packages use lead to ours."""

from __future__ import annotations

import pytest

from od_detr.cli.commands import COMMANDS
from od_detr.options.names import as_flag, known_name, no_such_option

# The option, or a part of the sentence, that stands for a name of rfdetr, ultralytics or DETR.
PEERS = {
    "train": {
        "imgsz": "--image-size", "img": "--image-size", "resolution": "--image-size",
        "batch": "--batch-size", "nbs": "--accumulate", "grad_accum_steps": "--accumulate",
        "epoch": "--epochs", "max_epochs": "--epochs", "time": "--budget",
        "lr": "--opt.lr", "lr0": "--opt.lr", "learning_rate": "--opt.lr", "lr_drop": "--opt.drop",
        "lr_encoder": "--opt.backbone-lr", "lr_backbone": "--opt.backbone-lr",
        "weight_decay": "--opt.wd", "clip_max_norm": "--opt.clip", "warmup_epochs": "--opt.warmup",
        "optimizer": "AdamW only", "momentum": "AdamW only", "cos_lr": "--opt.drop",
        "weights": "--init", "pretrained": "--init", "pretrain_weights": "--init",
        "name": "--output", "project": "--output", "output_dir": "--output", "exist_ok": "--resume",
        "val": "--eval.every", "dataset_dir": "--data", "dataset_file": "--data",
        "coco_path": "--data", "single_cls": "--single-class", "num_classes": "--classes",
        "nc": "--classes", "num_queries": "--queries", "early_stopping": "--patience",
        "freeze_backbone": "--freeze", "amp": "--precision", "num_workers": "--workers",
        "gpus": "--devices", "world_size": "--devices", "mosaic": "--augment",
        "multi_scale": "--augment", "hsv_h": "--augment", "save_period": "--save-minutes",
        "wandb": "--logger", "tensorboard": "--logger", "use_ema": "--ema.track",
        "plots": "evaluate", "conf": "predict", "detect": "predict", "iou": "no NMS",
    },
    "predict": {
        "source": "SOURCES, given without a name", "conf": "--threshold", "save_txt": "--yolo",
        "save_crop": "--save-crops", "half": "--precision", "imgsz": "as in training",
        "name": "--output", "batch": "--batch-size", "max_det": "--threshold", "show": "--output",
    },
    "evaluate": {
        "conf": "--threshold", "plots": "--figure", "save_json": "--output", "task": "--split",
        "imgsz": "--image-size", "batch": "--batch-size",
    },
    "convert": {"format": "--to", "weights": "CHECKPOINT, given without a name"},
    "convert-data": {"format": "--to"},
}  # fmt: skip
CASES = [(command, *pair) for command, names in PEERS.items() for pair in names.items()]


@pytest.mark.parametrize(("command", "name", "ours"), CASES)
def test_a_name_of_another_package_leads_to_ours(command: str, name: str, ours: str) -> None:
    options = COMMANDS[command].options
    assert known_name(options, name) is None
    assert ours in str(no_such_option(options, name, as_flag(name), as_flag))


@pytest.mark.parametrize(("command", "name"), [(command, name) for command, name, _ in CASES])
def test_the_hint_names_no_option_that_is_not_there(command: str, name: str) -> None:
    options = COMMANDS[command].options
    hint = str(no_such_option(options, name, as_flag(name), as_flag)).partition("did you mean")[2]
    for word in hint.replace("?", "").split():
        assert not word.startswith("--") or known_name(options, word[2:])
