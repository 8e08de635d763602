"""Pairs of boxes that nearly coincide are found as by comparing every box with every other."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from tests.doctor.conftest import Plants

from od_detr.data.folders import open_split
from od_detr.doctor.checks.boxes import EVERYWHERE, NEARLY, close_pairs, everywhere, iou
from od_detr.doctor.diagnosis import Examination, diagnosed


def test_close_pairs_are_those_of_an_exhaustive_search(plants: Callable[..., Plants]) -> None:
    sick = plants(train=3, val=1)
    rng = np.random.default_rng(0)
    entries = sick.documents["train"]["images"]
    corners = [(x, y) for x in (2.0, 3.0, 30.0) for y in (2.0, 4.0)]
    sick.documents["train"]["annotations"] = [
        {"image_id": entry["id"], "category_id": 1, "bbox": [x, y, *rng.uniform(20, 26, 2)]}
        for entry in entries
        for x, y in corners
        for _ in range(4)
    ]
    found = open_split(sick.write(), "train")
    boxes = found.boxes_xywh
    expected = [
        (a, b)
        for a, b in combinations(range(len(boxes)), 2)
        if found.owners[a] == found.owners[b] and iou(boxes[[a]], boxes[[b]])[0] >= NEARLY
    ]
    assert len(expected) > 20
    assert close_pairs(found, np.arange(len(boxes))) == expected


@pytest.mark.parametrize("images", [EVERYWHERE - 1, EVERYWHERE])
def test_a_box_is_the_same_everywhere_by_the_number_of_its_images(
    images: int, plants: Callable[..., Plants]
) -> None:
    sick = plants(train=images, val=1)
    boxes = sick.documents["train"]["annotations"]
    for box in boxes[::3]:
        box["bbox"] = [5, 5, 20, 20]
    boxes += [boxes[0] | {"id": 900 + n} for n in range(EVERYWHERE)]
    found = open_split(sick.write(), "train")
    same = (found.boxes_xywh == [5, 5, 20, 20]).all(1)
    expected = same if images == EVERYWHERE else np.zeros_like(same)
    assert everywhere(found, np.ones_like(same)).tolist() == expected.tolist()


def test_a_box_without_area_is_found_though_the_size_of_its_image_is_not(
    plants: Callable[..., Plants],
) -> None:
    """COCO's boxes are in pixels, whatever their image."""
    sick = plants(train=4, val=1)
    document = sick.documents["train"]
    del document["images"][0]["width"]
    document["annotations"][0]["bbox"][2] = 0
    found = diagnosed(sick.write(), Examination()).problems
    assert "box-empty" in {problem.code for problem in found if problem.split == "train"}
