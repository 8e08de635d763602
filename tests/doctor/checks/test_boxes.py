"""Pairs of boxes that nearly coincide are found as by comparing every box with every other."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
from tests.doctor.conftest import Plants

from od_detr.data.folders import open_split
from od_detr.doctor.checks.boxes import NEARLY, close_pairs, iou


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
