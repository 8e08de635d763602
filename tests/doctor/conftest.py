"""A sound data set of small images, into which a test plants faults."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

WIDTH, HEIGHT = 64, 48
CLASSES = ("cell", "dish", "rod")
Document = dict[str, list[Any]]


class Plants:
    """A COCO data set on disk whose documents and files may still be changed; `write` ends that."""

    def __init__(self, root: Path, sizes: dict[str, int]) -> None:
        self.root = root
        self.documents: dict[str, Document] = {}
        # Texts that a document cannot hold, such as a key that is there twice.
        self.replaced: list[tuple[str, str]] = []
        self._untouched: dict[str, Iterator[int]] = {}
        first = 1
        for split, count in sizes.items():
            self.documents[split] = self._document(split, range(first, first + count))
            self._untouched[split] = iter(range(count))
            first += count

    def _document(self, split: str, numbers: range) -> Document:
        folder = self.root / "images" / split
        folder.mkdir(parents=True)
        document: Document = {"images": [], "annotations": [], "categories": []}
        document["categories"] = [{"id": n, "name": name} for n, name in enumerate(CLASSES, 1)]
        for number in numbers:
            name = f"{number:05d}.jpg"
            picture(number).save(folder / name, quality=90)
            entry = {"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT}
            document["images"].append(entry)
            rng = np.random.default_rng(number)
            for place in range(3):
                corner = [
                    float(2 + 20 * place + rng.integers(0, 3)),
                    float(rng.integers(2, 12) + number % 7),
                ]
                box = [*corner, float(rng.integers(10, 15)), float(rng.integers(10, 20))]
                document["annotations"].append(
                    {
                        "id": 10 * number + place,
                        "image_id": number,
                        "category_id": 1 + place,
                        "bbox": box,
                        "area": box[2] * box[3],
                        "iscrowd": 0,
                    }
                )
        return document

    def image(self, split: str = "train") -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The entry of an image that no fault was planted in yet, and its three boxes."""
        entry = self.documents[split]["images"][next(self._untouched[split])]
        boxes = (box for box in self.documents[split]["annotations"] if isinstance(box, dict))
        return entry, [box for box in boxes if box.get("image_id") == entry["id"]]

    def path(self, entry: dict[str, Any], split: str = "train") -> Path:
        """The file of an image."""
        return self.root / "images" / split / entry["file_name"]

    def write(self) -> Path:
        """Writes the documents; returns the folder."""
        for split, document in self.documents.items():
            text = json.dumps(document)
            for old, new in self.replaced:
                text = text.replace(old, new)
            (self.root / f"{split}.json").write_text(text)
        return self.root


def picture(seed: int) -> Image.Image:
    """A soft random pattern, unlike that of any other seed."""
    rng = np.random.default_rng(seed)
    small = rng.integers(30, 220, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


@pytest.fixture
def plants(tmp_path: Path) -> Callable[..., Plants]:
    """Makes a sound data set of these numbers of images."""

    def make(**sizes: int) -> Plants:
        return Plants(tmp_path / "data", sizes)

    return make
