"""Rare classes are repeated by LVIS's rule, and images without objects make up the share asked."""

from __future__ import annotations

import json
from math import sqrt
from pathlib import Path

import numpy as np
import pytest

from od_detr.data.annotations import Annotations
from od_detr.data.folders import open_split
from od_detr.data.sampling.composition import Composition
from od_detr.data.sampling.rules import composed, described
from od_detr.errors import InputError

CLASSES = ("common", "rare", "absent")


def split_of(folder: Path, labels: list[list[int]], crowd: bool = False) -> Annotations:
    """A data set whose images have objects of these classes."""
    (folder / "images").mkdir(exist_ok=True)
    flat = [(image, label) for image, mine in enumerate(labels) for label in mine]
    document = {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "width": 9, "height": 9} for i in range(len(labels))
        ],
        "annotations": [
            {"id": i, "image_id": image, "category_id": label, "bbox": [1, 1, 5, 5]}
            | {"iscrowd": int(crowd)}
            for i, (image, label) in enumerate(flat)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES)],
    }
    (folder / "train.json").write_text(json.dumps(document))
    (folder / "val.json").write_text("{}")
    for i in range(len(labels)):
        (folder / "images" / f"{i}.jpg").touch()
    return open_split(folder, "train")


def transcribed(labels: list[list[int]], threshold: float) -> list[float]:
    """The rule as LVIS states it, image by image."""
    factors = []
    for mine in labels:
        shares = [sum(c in other for other in labels) / len(labels) for c in mine]
        factors.append(max([1.0, *(max(1.0, sqrt(threshold / share)) for share in shares)]))
    return factors


LABELS = [[0], [0, 0], [0, 1], [0], [], [0], [], [0], [0], [0]]


@pytest.mark.parametrize("threshold", [0.001, 0.1, 0.4, 1.0])
def test_factors_are_those_of_the_rule(tmp_path: Path, threshold: float) -> None:
    composition = composed(split_of(tmp_path, LABELS), balance=threshold)
    assert composition.repeats.tolist() == pytest.approx(transcribed(LABELS, threshold))
    assert np.flatnonzero(composition.background).tolist() == [4, 6]


@pytest.mark.parametrize(("share", "without"), [(0.0, 0), (0.1, 1), (0.2, 2), (0.5, 8), (0.9, 72)])
def test_the_share_of_images_without_objects_is_the_one_asked_for(
    tmp_path: Path, share: float, without: int
) -> None:
    composition = composed(split_of(tmp_path, LABELS), background_fraction=share)
    assert len(composition) == 8 + without
    copies = composition.copies(0, 0)
    assert copies[composition.background].sum() == without
    assert (copies[~composition.background] == 1).all()
    assert f"{without} without, drawn from 2" in described(composition)


def test_both_together_share_the_repeated_images(tmp_path: Path) -> None:
    composition = composed(split_of(tmp_path, LABELS), 0.4, 0.25)
    assert composition.repeats[2] == pytest.approx(2)
    assert len(composition) == 9 + 3
    assert "9 with objects (1 of 8 repeated, up to 2.0 times)" in described(composition)


def test_neither_is_each_image_once(tmp_path: Path) -> None:
    composition, each_once = composed(split_of(tmp_path, LABELS)), Composition.each_once(10)
    assert composition.repeats.tolist() == each_once.repeats.tolist()
    assert composition.background.tolist() == each_once.background.tolist()


def test_senseless_wishes_are_refused_on_one_line(tmp_path: Path) -> None:
    full = split_of(tmp_path, [[0], [1]])
    with pytest.raises(InputError, match=r"^--background-fraction: every image[^\n]*$"):
        composed(full, background_fraction=0.1)
    assert len(composed(full, background_fraction=0.0)) == 2
    crowds = split_of(tmp_path, [[0], [1]], crowd=True)
    for name, wish in (("balance", 0.1), ("background-fraction", 0.5)):
        with pytest.raises(InputError, match=rf"^--{name}: no image in [^\n]*has an object"):
            composed(crowds, **{name.replace("-", "_"): wish})
