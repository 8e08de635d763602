"""A small sound data set that a test may spoil."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from od_detr.data.scenes import render_scenes

Document = dict
SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Public sample data sets, or rendered stand-ins if they are not beside the repository."""
    if SHARED.is_dir():
        return SHARED
    folder = tmp_path_factory.mktemp("public")
    for seed, name in enumerate(("coco_tiny", "bccd", "coco_cc")):
        render_scenes(folder / name, 12, 6, 96, seed=seed)
        for split in ("train", "val"):
            as_published(folder / name / f"{split}.json")
    return folder


def as_published(file: Path) -> None:
    """Gives annotations what public sets have: category ids with gaps, and a crowd."""
    content = json.loads(file.read_text())
    for entry in content["categories"]:
        entry["id"] = 10 * entry["id"] + 3
    for entry in content["annotations"]:
        entry["category_id"] = 10 * entry["category_id"] + 3
    content["annotations"][0]["iscrowd"] = 1
    file.write_text(json.dumps(content))


@pytest.fixture
def sound() -> Document:
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


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Document | str], Path]:
    """Writes ``train.json`` (a document, or the file's very text) and the images.

    Returns the folder.
    """

    def written(document: Document | str) -> Path:
        rng = np.random.default_rng(0)
        (tmp_path / "images").mkdir(exist_ok=True)
        for name, height, width in (("a.png", 30, 40), ("b.jpg", 48, 32), ("c.png", 20, 20)):
            pixels = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name)
        text = document if isinstance(document, str) else json.dumps(document)
        (tmp_path / "train.json").write_text(text)
        (tmp_path / "val.json").write_text("{}")  # so that the training images are not divided
        return tmp_path

    return written
