"""What the documents name: data, images, a video and weights of the hub, all of them small."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import huggingface_hub.constants
import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import TINY as OF_ALL_TESTS
from tests.subset import first_images

from od_detr.data.dataset import CocoDataset
from od_detr.data.scenes import render_scenes
from od_detr.detectors import build_detector, save_detector
from od_detr.options import SIZES, TrainOptions

SHARED = Path(__file__).parents[3] / "shared"
HUB = "SenseTime/deformable-detr-with-box-refine"
COMMIT = "0123456789" * 4
TINY = OF_ALL_TESTS | {"queries": 30}  # an image has up to 22 blood cells
IMAGES = {"train": 6, "val": 2}


def real_data(name: str, folder: Path) -> Path:
    """A few images of a real data set, or built-in scenes where the data set is not there."""
    source = SHARED / "data" / name
    if not source.is_dir():
        render_scenes(folder, IMAGES["train"], IMAGES["val"], 64, seed=0)
        return folder
    for split, number in IMAGES.items():
        chosen = first_images(source / f"instances_{split}.json", number)
        for each in chosen["images"]:
            place = folder / each["file_name"]
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / each["file_name"], place)
        (folder / f"instances_{split}.json").write_text(json.dumps(chosen))
    return folder


def tiny(options: TrainOptions) -> TrainOptions:
    """The same training with a detector and a schedule of seconds."""
    two_stage = str(options.model).startswith("dino")
    shorter = {"epochs": 1, "image_size": 64, "workers": 0, "device": "cpu", "eval": TINY["eval"]}
    started = bool(options.init) or options.resume
    own_backbone = options.backbone != TrainOptions.backbone
    sizes = {} if started else {name: TINY[name] for name in SIZES if name in TINY}
    if not (started or own_backbone):
        sizes |= {name: TINY[name] for name in TINY if name.startswith("backbone")}
    if two_stage:
        sizes.pop("num_levels", None)
    return replace(options, **shorter, **sizes)


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder with everything that the examples name."""
    home = tmp_path_factory.mktemp("home")
    real_data("bccd", home / "my_data")
    for name in ("data", "more_data", "more data"):
        (home / name).symlink_to(home / "my_data")
    first = next((home / "my_data").rglob("*.[jp][pn]g"))
    (home / "holiday").mkdir()
    for name in ("street.jpg", "holiday/beach.jpg"):
        Image.open(first).convert("RGB").resize((96, 64)).save(home / name)
    with av.open(str(home / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for level in (0, 200):
            pixels = np.full((64, 64, 3), level, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return home


@pytest.fixture(scope="session")
def saved(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small detector of the user's classes, with random weights."""
    folder = tmp_path_factory.mktemp("saved")
    torch.manual_seed(0)
    sizes = {name: TINY[name] for name in SIZES if name in TINY} | {"backbone": "resnet18"}
    data = CocoDataset.from_folder(home / "my_data", "train")
    detector = build_detector("deformable-detr-plus", len(data.classes), **sizes)
    ids = list(data.category_ids)
    save_detector(detector, folder, data.classes, category_ids=ids, image_size=64)
    return folder


@pytest.fixture(scope="session")
def hub(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the hub that holds the published checkpoint, with small random weights."""
    from od_detr.integrations.weights.convert import convert_to_huggingface

    cache = tmp_path_factory.mktemp("hub")
    folder = cache / f"models--{HUB.replace('/', '--')}"
    convert_to_huggingface(saved, folder / "snapshots" / COMMIT)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    return cache


@pytest.fixture
def at_home(home: Path, hub: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """In the user's folder, where every training is a tiny one; nothing is downloaded."""
    from od_detr.training import fit as training

    real = training.fit
    monkeypatch.chdir(home)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(hub))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(training, "fit", lambda options: real(tiny(options)))
    return real
