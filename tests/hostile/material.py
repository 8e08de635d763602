"""The sound things that cases spoil: a data set, a trained run, and files of weights."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tests.conftest import TINY

from od_detr.data.dataset import CocoDataset
from od_detr.data.formats.choices import Choices
from od_detr.options import TrainOptions
from od_detr.training.fit import fit

SIZES = {"a.png": (30, 40), "b.jpg": (48, 32), "c.png": (20, 20)}
Document = dict[str, Any]
SMALLEST = TINY | {
    "epochs": 1,
    "image_size": 32,
    "batch_size": 3,
    "hidden_dim": 16,
    "feedforward": 16,
    "backbone_options": {"channels": [8, 8, 8, 8], "layers": [1, 1, 1, 1]},
}


def document() -> Document:
    """Three images, one without boxes; category ids with gaps and out of order."""
    return {
        "images": [
            {"id": 30, "file_name": "a.png", "width": 40, "height": 30},
            {"id": 10, "file_name": "b.jpg", "width": 32, "height": 48},
            {"id": 20, "file_name": "c.png", "width": 20, "height": 20},
        ],
        "annotations": [
            {"id": 5, "image_id": 10, "category_id": 90, "bbox": [2, 3, 10, 20], "iscrowd": 0},
            {"id": 6, "image_id": 30, "category_id": 7, "bbox": [0, 0, 40, 30]},
            {"id": 7, "image_id": 10, "category_id": 7, "bbox": [1.5, 2.5, 4, 8]},
        ],
        "categories": [{"id": 90, "name": "zebra"}, {"id": 7, "name": "cat"}],
    }


def make_material(folder: Path) -> Path:
    """Writes `data`, `run` (trained for one epoch) and `photo.png` into the folder."""
    data, rng = folder / "data", np.random.default_rng(0)
    (data / "images").mkdir(parents=True)
    for name, (height, width) in SIZES.items():
        pixels = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(data / "images" / name)
    for split in ("train", "val"):
        (data / f"{split}.json").write_text(json.dumps(document()))
    Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)).save(folder / "photo.png")
    torch.manual_seed(0)
    options = TrainOptions(data=str(data), output=str(folder / "run"), **SMALLEST)
    with contextlib.redirect_stdout(io.StringIO()):
        fit(options)
    return folder


def flags(**changes: Any) -> list[str]:
    """The flags of the smallest run, changed."""
    values = {name: value for name, value in (SMALLEST | changes).items() if value is not None}
    words = []
    for name, value in values.items():
        if is_dataclass(value):
            inner = {each: item for each, item in vars(value).items() if item is not None}
            words += [
                word for each, item in inner.items() for word in (f"--{name}.{each}", str(item))
            ]
            continue
        text = json.dumps(value, separators=(",", ":")) if isinstance(value, dict) else str(value)
        words += [f"--{name.replace('_', '-')}", text]
    return words


def nothing(_: Path) -> None:
    """Everything is sound."""


def open_data(folder: Path, choices: Choices | None = None) -> list[str]:
    """Opens the training split as training does and reads all items; the lines about its faults."""
    from od_detr.data.transforms import Transform

    transform = Transform(32, "none")
    dataset = CocoDataset.from_folder(Path("data"), "train", transform, choices=choices)
    for place in range(len(dataset)):
        sample = dataset[place]
        assert bool(torch.isfinite(sample.boxes).all()), "a box is not finite"
        assert bool(((sample.boxes >= 0) & (sample.boxes <= 1)).all()), "a box is out of range"
        assert bool((sample.labels < len(dataset.classes)).all()), "a label has no class"
    return [line for line in dataset.described("train") if not line.startswith("train: ")]


def edited(change: Callable[[Document], object], split: str = "train") -> Callable[[Path], object]:
    """Changes the annotation file."""

    def spoil(folder: Path) -> None:
        file = folder / "data" / f"{split}.json"
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))

    return spoil


def written(text: str | bytes, name: str = "data/train.json") -> Callable[[Path], object]:
    """Replaces a file's content."""

    def spoil(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    return spoil
